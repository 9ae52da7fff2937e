//! Conversations with systemd: org.freedesktop.systemd1(5).

mod slices;

use std::fmt;
use std::time::{Duration, Instant};

use lifecycle_engine::error::EffectError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::slices::Slice;
use crate::dbus::{Address, Connection, Error, Kind, Message, Value, parse};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SCOPE: &str = "org.freedesktop.systemd1.Scope";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The answer where there is no such unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The longest that starting or stopping a scope may take: nothing in it has a part in it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A property of a unit, its value in GVariant's text format: so a dry run, a journal and an annotation show the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// As in org.freedesktop.systemd1(5).
    pub name: String,
    /// Such as `uint64 512`.
    pub value: String,
}

impl Property {
    /// A property with that value.
    pub fn new(name: &str, value: &Value) -> Self {
        Self { name: name.to_owned(), value: crate::dbus::print(value) }
    }

    /// As systemd's methods take it.
    fn wire(&self) -> Result<Value, EffectError> {
        let value = parse(&self.value).map_err(|why| EffectError::new(format!("the property {self}: {why}")))?;
        Ok(Value::Struct(vec![Value::str(&self.name), value.variant()]))
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

fn wire(properties: &[Property]) -> Result<Value, EffectError> {
    let items = properties.iter().map(Property::wire).collect::<Result<_, _>>()?;
    Ok(Value::Array("(sv)".into(), items))
}

/// Properties by name, as systemd has them.
type Properties = Vec<(String, Value)>;

/// systemd, or an ordinary user's instance of it.
pub struct Manager {
    connection: Connection,
}

/// What we know a unit by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `ActiveState`.
    pub active: String,
    /// `Description`.
    pub description: String,
    /// `InvocationID` in hexadecimal digits: unique for each time that a unit is started.
    pub invocation: String,
    /// `ControlGroup` of a scope.
    pub control_group: String,
    /// `Documentation`: URIs.
    pub documentation: Vec<String>,
}

impl Manager {
    /// Connects where it may not run at all.
    pub fn at_once(address: &Address) -> Result<Self, EffectError> {
        let connection = Connection::open(address).map_err(|e| failed("connect to systemd", address, e))?;
        Ok(Self { connection })
    }

    /// Connects to one that runs; while it reads its units anew its socket is gone for a moment.
    pub fn open(address: &Address) -> Result<Self, EffectError> {
        let connection = Connection::open_again(address).map_err(|e| failed("connect to systemd", address, e))?;
        Ok(Self { connection })
    }

    /// Connects to start or stop units: signals of finished jobs will come.
    pub fn for_jobs(address: &Address) -> Result<Self, EffectError> {
        let mut manager = Self::open(address)?;
        // Ids of processes mean something in a pid namespace only.
        if manager.connection.listener().is_none() {
            return Err(EffectError::new(
                "systemd is not in this pid namespace, so it cannot be told which process is meant",
            )
            .help("run without --systemd-cgroup here, or in the pid namespace of the host"));
        }
        if manager.connection.is_bus() {
            let rule = format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
            let bus = "org.freedesktop.DBus";
            let call = Message::call(bus, "/org/freedesktop/DBus", bus, "AddMatch", vec![Value::Str(rule)]);
            manager.connection.call(call).map_err(|e| failed("listen to systemd", address, e))?;
            let subscribed = manager.manager("Subscribe", Vec::new());
            subscribed.map_err(|e| failed("subscribe to systemd", address, e))?;
        }
        Ok(manager)
    }

    fn manager(&mut self, method: &str, body: Vec<Value>) -> Result<Vec<Value>, Error> {
        self.connection.call(Message::call(NAME, OBJECT, MANAGER, method, body))
    }

    fn properties(&mut self, path: &str, interface: &str) -> Result<Properties, Error> {
        let body = vec![Value::str(interface)];
        let answer = self.connection.call(Message::call(NAME, path, PROPERTIES, "GetAll", body))?;
        let Some(Value::Array(_, entries)) = answer.into_iter().next() else {
            return Err(Error::Protocol("no properties"));
        };
        let pair = |entry| match entry {
            Value::Entry(name, value) => match (name.as_str(), *value) {
                (Some(name), Value::Variant(value)) => Some((name.to_owned(), *value)),
                _ => None,
            },
            _ => None,
        };
        Ok(entries.into_iter().filter_map(pair).collect())
    }

    /// One property of the manager itself.
    pub fn property(&mut self, name: &str) -> Result<Value, Error> {
        let body = vec![Value::str(MANAGER), Value::str(name)];
        let answer = self.connection.call(Message::call(NAME, OBJECT, PROPERTIES, "Get", body))?;
        answer.into_iter().next().ok_or(Error::Protocol("no property"))
    }

    /// What is loaded under that name. `None`: nothing is.
    pub fn unit(&mut self, name: &str) -> Result<Option<Unit>, EffectError> {
        self.try_unit(name).map_err(|e| refused("ask systemd about", name, e))
    }

    fn path(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.manager("GetUnit", vec![Value::str(name)]) {
            Ok(answer) => Ok(answer.first().and_then(Value::as_str).map(str::to_owned)),
            Err(e) if e.is(NO_SUCH_UNIT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The object of a unit that is loaded, and what every unit has.
    fn loaded(&mut self, name: &str) -> Result<Option<(String, Properties)>, Error> {
        let Some(path) = self.path(name)? else { return Ok(None) };
        match self.properties(&path, UNIT) {
            Ok(all) => Ok(Some((path, all))),
            // It was unloaded meanwhile.
            Err(e) if e.is(NO_SUCH_UNIT) || e.is("org.freedesktop.DBus.Error.UnknownObject") => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn try_unit(&mut self, name: &str) -> Result<Option<Unit>, Error> {
        let Some((path, mut all)) = self.loaded(name)? else { return Ok(None) };
        if let Ok(more) = self.properties(&path, SCOPE) {
            all.extend(more);
        }
        let find = |name: &str| find(&all, name);
        let text = |name: &str| find(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Some(Unit {
            active: text("ActiveState"),
            description: text("Description"),
            invocation: invocation(&all),
            control_group: text("ControlGroup"),
            documentation: texts(&all, "Documentation"),
        }))
    }

    /// The current values of a scope's properties of these names.
    pub fn scope_properties(&mut self, unit: &str, names: &[&str]) -> Result<Vec<Property>, EffectError> {
        let asked = |e| refused("ask systemd about", unit, e);
        let path = self.path(unit).map_err(asked)?;
        let path = path.ok_or_else(|| EffectError::new(format!("systemd has no unit {unit}")))?;
        let all = self.properties(&path, SCOPE).map_err(asked)?;
        let wanted = all.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Ok(wanted.map(|(name, value)| Property::new(name, value)).collect())
    }

    /// Changes properties of a unit until it ends.
    pub fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<(), EffectError> {
        let body = vec![Value::str(unit), Value::Bool(true), wire(properties)?];
        let answer = self.manager("SetUnitProperties", body);
        answer.map(drop).map_err(|e| refused("have systemd change", unit, e))
    }

    /// Sends the request to make a scope of a process. "replace": a slice that somebody is about to stop, since it is empty, stays then, where
    /// "fail" would have us refused.
    pub fn start_scope(mut self, unit: &str, properties: &[Property], pid: u32) -> Result<Job, EffectError> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        let pids = Value::Struct(vec![Value::str("PIDs"), pids.variant()]);
        let Value::Array(of, mut all) = wire(properties)? else { return Err(EffectError::new("no properties")) };
        all.push(pids);
        let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
        let body = vec![Value::str(unit), Value::str("replace"), Value::Array(of, all), auxiliary];
        let call = Message::call(NAME, OBJECT, MANAGER, "StartTransientUnit", body);
        let sent = self.connection.send(call).map_err(|e| refused("have systemd start", unit, e))?;
        Ok(Job::new(self, sent, unit, "start"))
    }

    /// Kills whatever is in the unit, and sends the request to stop it.
    pub fn stop(mut self, unit: &str) -> Result<Job, EffectError> {
        let stopping = |e| refused("have systemd stop", unit, e);
        let kill = vec![Value::str(unit), Value::str("all"), Value::I32(nix::libc::SIGKILL)];
        match self.manager("KillUnit", kill) {
            // It has no process left, or is gone.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(e) => return Err(stopping(e)),
        }
        let body = vec![Value::str(unit), Value::str("replace")];
        let sent = self.connection.send(Message::call(NAME, OBJECT, MANAGER, "StopUnit", body)).map_err(stopping)?;
        Ok(Job::new(self, sent, unit, "stop"))
    }

    /// Lets systemd forget that the unit failed, without which it keeps it. A unit that is gone, or has not failed, is nothing to forget.
    pub fn reset_failed(&mut self, unit: &str) -> Result<(), EffectError> {
        match self.manager("ResetFailedUnit", vec![Value::str(unit)]) {
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(e) => Err(refused("have systemd forget", unit, e)),
        }
    }
}

fn find<'a>(all: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    all.iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

fn texts(all: &[(String, Value)], name: &str) -> Vec<String> {
    match find(all, name) {
        Some(Value::Array(_, items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn invocation(all: &[(String, Value)]) -> String {
    let bytes = find(all, "InvocationID").and_then(Value::as_bytes).unwrap_or_default();
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A request that systemd works on.
pub struct Job {
    /// The connection over which it was sent.
    pub manager: Manager,
    /// When to give it up.
    pub until: Instant,
    sent: u32,
    unit: String,
    verb: &'static str,
    /// The job's object, once systemd has told it.
    path: Option<String>,
    /// Jobs that ended, with their results: ours may end before its answer is read.
    ended: Vec<(String, String)>,
    /// Somebody else's job may take its place: that ends it too.
    yields: bool,
}

impl Job {
    fn new(manager: Manager, sent: u32, unit: &str, verb: &'static str) -> Self {
        let until = Instant::now() + PATIENCE;
        Self { manager, until, sent, unit: unit.to_owned(), verb, path: None, ended: Vec::new(), yields: false }
    }

    /// The descriptor that becomes readable when systemd says something.
    pub fn fd(&self) -> std::os::fd::RawFd {
        use std::os::fd::AsRawFd;
        self.manager.connection.as_raw_fd()
    }

    /// Reads what has come. `Some`: the job is over; true if there was one, false if there is no such unit.
    pub fn advance(&mut self) -> Result<Option<bool>, EffectError> {
        let (verb, unit) = (self.verb, self.unit.clone());
        let asked = move |e| refused(&format!("have systemd {verb}"), &unit, e);
        while let Some(message) = self.manager.connection.next_message().map_err(&asked)? {
            if message.reply_to == self.sent && matches!(message.kind, Kind::Return | Kind::Error) {
                match Connection::answered(message) {
                    Ok(body) => self.path = body.first().and_then(Value::as_str).map(str::to_owned),
                    Err(e) if self.verb == "stop" && e.is(NO_SUCH_UNIT) => return Ok(Some(false)),
                    Err(e) => return Err(asked(e)),
                }
            } else if message.member == "JobRemoved" && message.interface == MANAGER {
                let text = |n: usize| message.body.get(n).and_then(Value::as_str).unwrap_or_default().to_owned();
                self.ended.push((text(1), text(3)));
            }
        }
        let ours = self.ended.iter().find(|(path, _)| Some(path) == self.path.as_ref());
        match ours {
            Some((_, result)) if result == "done" || (self.yields && result == "canceled") => Ok(Some(true)),
            Some((_, result)) => Err(self.failed(&format!("the job ended as `{result}`"))),
            None if Instant::now() >= self.until => Err(self.failed("it has not answered for 30 s")),
            None => Ok(None),
        }
    }

    fn failed(&self, why: &str) -> EffectError {
        EffectError::new(format!("have systemd {} {}: {why}", self.verb, self.unit))
            .help(format!("`systemctl status {0}` and `journalctl -u {0}` say more", self.unit))
    }
}

fn failed(what: &str, address: &Address, error: Error) -> EffectError {
    let what = format!("{what} at {}", address.socket.display());
    match error {
        Error::Io(e) => EffectError::call(what, e).help("is systemd running, and may the caller talk to it?"),
        e => EffectError::new(format!("{what}: {e}")),
    }
}

fn refused(what: &str, unit: &str, error: Error) -> EffectError {
    let what = format!("{what} {unit}");
    let (name, text) = match error {
        Error::Io(e) => return EffectError::call(what, e),
        Error::Protocol(_) => return EffectError::new(format!("{what}: {error}")),
        Error::Refused { ref name, .. } => (name.clone(), format!("{what}: {error}")),
    };
    let help = match name.as_str() {
        "org.freedesktop.systemd1.UnitExists" => {
            format!("another container or runtime has it; choose another cgroupsPath, or `systemctl stop {unit}`")
        }
        "org.freedesktop.DBus.Error.AccessDenied" | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            "run as root, or as a user with an instance of systemd of his own (`systemctl --user status`)".to_owned()
        }
        "org.freedesktop.DBus.Error.PropertyReadOnly" | "org.freedesktop.DBus.Error.InvalidArgs" => {
            "see the limits in config.json and its annotations `org.systemd.property.…`".to_owned()
        }
        _ => return EffectError::new(text),
    };
    EffectError::new(text).help(help)
}

#[cfg(test)]
mod tests;
