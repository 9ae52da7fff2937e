//! The network effects on the real kernel, in network namespaces that each test makes.

use std::net::TcpListener;

use lifecycle_engine::effect::{Effect, EffectDef, Record};
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::Later;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::json;

use super::ip::IpNet;
use super::name::LinkName;
use super::netlink::{Found, Rtnl};
use super::netns::Netns;
use crate::effects::address::AddressAdd;
use crate::effects::device::MoveDevice;
use crate::effects::link::{Kind, Link, LinkAdd, LinkSet, LinkWait, Peer, Target};
use crate::effects::netns::PinNetns;
use crate::effects::probe::{Pace, ProbeTcp};
use crate::effects::route::RouteAdd;
use crate::outcomes::Process;
use crate::spawn::testing::Bench;
use crate::sys::clone::fork;

fn wait_for(pid: Pid) {
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the test's body failed; its message is above");
}

/// Runs the body in a process with a network namespace of its own.
fn in_a_network(body: impl FnOnce()) {
    let child = fork(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        body();
        0
    });
    wait_for(child.unwrap());
}

/// A process in another network namespace, which does what it is told there and then waits until it is dropped.
struct Other {
    pid: Pid,
    process: Process,
}

impl Other {
    fn new() -> Self {
        let (ready, tell) = rustix::pipe::pipe().unwrap();
        let pid = fork(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            rustix::io::write(&tell, b"r").unwrap();
            loop {
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
        });
        rustix::io::read(&ready, &mut [0u8; 1]).unwrap();
        let pid = pid.unwrap();
        Self { pid, process: Process::of(pid).unwrap() }
    }

    /// Runs the body in its network namespace.
    fn inside(&self, body: impl FnOnce()) {
        let child = fork(|| {
            Netns::of(&self.process).unwrap().join().unwrap();
            body();
            0
        });
        wait_for(child.unwrap());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        rustix::process::kill_process(self.pid, rustix::process::Signal::KILL).unwrap();
        waitpid(Some(self.pid), WaitOptions::empty()).unwrap();
    }
}

/// As in a site that has a network of its own.
fn owner() -> Bench {
    let mut bench = Bench::new();
    bench.fds.mark("net");
    bench
}

fn name(text: &str) -> LinkName {
    LinkName::parse(text).unwrap()
}

fn net(text: &str) -> IpNet {
    IpNet::parse(text).unwrap()
}

fn bridge(name: &str) -> LinkAdd {
    LinkAdd { name: self::name(name), alias: format!("lifecycle:test:{name}"), kind: Kind::Bridge, mtu: None }
}

fn find(name: &str) -> Option<Found> {
    Rtnl::open().unwrap().link_by_name(name).unwrap()
}

/// All links, addresses and routes of the namespace, as far as they do not change by themselves.
fn state() -> Vec<String> {
    let mut rtnl = Rtnl::open().unwrap();
    let mut all = rtnl.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
    all.extend(rtnl.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).unwrap());
    all.extend(rtnl.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default())).unwrap());
    let line = |message| match message {
        RouteNetlinkMessage::NewLink(m) => {
            let found = rtnl.link_by_index(m.header.index).unwrap().unwrap();
            format!("{found:?} {:?}", m.header.flags)
        }
        RouteNetlinkMessage::NewAddress(m) => format!("{} {:?}", m.header.index, m.attributes.first()),
        RouteNetlinkMessage::NewRoute(m) => {
            // The rest are times and counters.
            let what = m.attributes.iter().filter(|a| !format!("{a:?}").starts_with("CacheInfo"));
            format!("{:?} {:?}", m.header, what.collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    };
    let mut lines: Vec<String> = all.into_iter().map(line).collect();
    lines.sort();
    lines
}

/// Applies the effect, checks that something is different, undoes it twice, and checks that nothing is.
fn there_and_back(bench: &mut Bench, effect: &dyn Effect) {
    let before = state();
    let (record, answer) = bench.apply(effect);
    answer.unwrap();
    assert_ne!(state(), before, "{} changes nothing", effect.describe());
    for _ in 0..2 {
        bench.undo(effect, &record).unwrap();
        assert_eq!(state(), before, "{} leaves something", effect.describe());
    }
}

#[test]
fn examples_apply_and_are_undone_twice() {
    in_a_network(|| {
        let mut bench = Bench::new();
        for effect in LinkSet::examples("/".as_ref()) {
            there_and_back(&mut bench, &effect);
        }
        bench.apply(&LinkSet::up(Target::Name(LinkName::lo()))).1.unwrap();
        for effect in LinkAdd::examples("/".as_ref()) {
            there_and_back(&mut bench, &effect);
        }
        for effect in AddressAdd::examples("/".as_ref()) {
            there_and_back(&mut bench, &effect);
        }
        for effect in RouteAdd::examples("/".as_ref()) {
            there_and_back(&mut bench, &effect);
        }
        for effect in LinkWait::examples("/".as_ref()) {
            bench.apply(&effect).1.unwrap();
        }
    });
}

#[test]
fn what_was_there_before_stays_when_undone() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let lo = Target::Name(LinkName::lo());
        let up = LinkSet::up(lo.clone());
        bench.apply(&up).1.unwrap();
        let address = AddressAdd { link: lo.clone(), address: net("127.9.9.9/32"), scoped: false };
        bench.apply(&address).1.unwrap();
        let route = RouteAdd { link: lo, to: net("192.0.2.0/24"), via: None, scoped: false };
        bench.apply(&route).1.unwrap();
        let before = state();
        for effect in [&up as &dyn Effect, &address, &route] {
            let (record, answer) = bench.apply(effect);
            answer.unwrap();
            bench.undo(effect, &record).unwrap();
            assert_eq!(state(), before);
        }
    });
}

#[test]
fn two_processes_reach_each_other_through_a_bridge_and_nothing_stays() {
    in_a_network(|| {
        let before = state();
        let (server, client) = (Other::new(), Other::new());
        let mut bench = Bench::new();
        let mut done: Vec<(Box<dyn Effect>, Record)> = Vec::new();
        let mut apply = |bench: &mut Bench, effect: Box<dyn Effect>| {
            let (record, answer) = bench.apply(effect.as_ref());
            let outcome = answer.unwrap();
            done.push((effect, record));
            serde_json::from_value::<Link>(outcome).ok()
        };
        let switch = apply(&mut bench, Box::new(bridge("lc0"))).unwrap();
        let switch = bench.handle("switch", &switch);
        let renamed =
            LinkSet { name: Some(name("br-test")), no_own_address: true, ..LinkSet::up(Target::Made(switch.clone())) };
        apply(&mut bench, Box::new(renamed));
        for (k, other) in [&server, &client].into_iter().enumerate() {
            let process = bench.handle(&format!("process{k}"), &other.process);
            let peer = Peer { name: LinkName::eth0(), process: Some(process), mac: None };
            let cable = LinkAdd { kind: Kind::Veth(peer), ..bridge(&format!("lc{k}h")) };
            let cable = apply(&mut bench, Box::new(cable)).unwrap();
            let cable = bench.handle(&format!("cable{k}"), &cable);
            let plugged =
                LinkSet { master: Some(switch.clone()), no_own_address: true, ..LinkSet::up(Target::Made(cable)) };
            apply(&mut bench, Box::new(plugged));
            other.inside(|| {
                let mut bench = owner();
                let eth0 = Target::Name(LinkName::eth0());
                bench.apply(&LinkWait { name: LinkName::eth0(), within: Millis(1000) }).1.unwrap();
                let address = net(&format!("10.77.0.{}/24", k + 1));
                bench.apply(&AddressAdd { link: eth0.clone(), address, scoped: true }).1.unwrap();
                bench.apply(&LinkSet { scoped: true, ..LinkSet::up(eth0.clone()) }).1.unwrap();
                let via = Some("10.77.0.9".parse().unwrap());
                bench.apply(&RouteAdd { link: eth0, to: net("0.0.0.0/0"), via, scoped: true }).1.unwrap();
            });
        }
        assert!(find("br-test").is_some_and(|b| b.up));
        assert!(
            !state().iter().any(|line| line.contains("10.77") || line.contains("fe80")),
            "the host takes part: {:#?}",
            state()
        );

        let (stop, listening) = (rustix::pipe::pipe().unwrap(), server.process.clone());
        let listener = fork(|| {
            Netns::of(&listening).unwrap().join().unwrap();
            let _listener = TcpListener::bind("10.77.0.1:80").unwrap();
            rustix::io::read(&stop.0, &mut [0u8; 1]).unwrap();
            0
        });
        let netns = Some(bench.handle("process1", &client.process));
        let pace = Pace { interval: Millis(10), within: Millis(10_000), netns };
        let answer = bench.apply(&ProbeTcp { address: "10.77.0.1".into(), port: 80, pace }).1;
        rustix::io::write(&stop.1, b"s").unwrap();
        wait_for(listener.unwrap());
        answer.unwrap();

        for (effect, record) in done.iter().rev() {
            bench.undo(effect.as_ref(), record).unwrap();
            bench.undo(effect.as_ref(), record).unwrap();
        }
        assert_eq!(state(), before);
    });
}

#[test]
fn a_link_that_was_made_but_never_journaled_is_deleted_by_its_name() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let effect = bridge("lc0");
        bench.apply(&effect).1.unwrap();
        // As if the engine had been killed right after the link was made.
        bench.undo(&effect, &Record::default()).unwrap();
        assert_eq!(find("lc0"), None);
        // And right before it got its alias.
        let bare = LinkAdd { alias: String::new(), ..effect.clone() };
        bench.apply(&bare).1.unwrap();
        bench.undo(&effect, &Record::default()).unwrap();
        assert_eq!(find("lc0"), None);
    });
}

#[test]
fn a_link_of_somebody_else_is_never_deleted() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let foreign = LinkAdd { alias: "somebody else's".into(), ..bridge("lc0") };
        bench.apply(&foreign).1.unwrap();
        let effect = bridge("lc0");
        let (record, answer) = bench.apply(&effect);
        let error = answer.unwrap_err();
        assert_eq!(error.errno, Some(nix::libc::EEXIST));
        assert!(error.help.is_some_and(|help| help.contains("lc0")));
        bench.undo(&effect, &record).unwrap();
        let unknown = bench.undo(&effect, &Record::default()).unwrap_err();
        assert!(unknown.what.contains("is not ours"), "{unknown}");
        let outcome =
            json!(Link { index: find("lc0").unwrap().index, name: "lc0".into(), alias: effect.alias.clone() });
        bench.undo(&effect, &Record { outcome: Some(outcome), ..Record::default() }).unwrap();
        assert!(find("lc0").is_some());
    });
}

#[test]
fn a_link_that_went_with_its_other_end_is_undone() {
    in_a_network(|| {
        let other = Other::new();
        let mut bench = Bench::new();
        let process = Some(bench.handle("init", &other.process));
        let effect =
            LinkAdd { kind: Kind::Veth(Peer { name: LinkName::eth0(), process, mac: None }), ..bridge("lc0h") };
        let (record, answer) = bench.apply(&effect);
        let link: Link = serde_json::from_value(answer.unwrap()).unwrap();
        let plugged = LinkSet::up(Target::Made(bench.handle("cable", &link)));
        let (plugged_record, answer) = bench.apply(&plugged);
        answer.unwrap();
        drop(other);
        // The kernel tears the namespace down when it finds the time.
        bench.undo(&plugged, &plugged_record).unwrap();
        bench.undo(&effect, &record).unwrap();
        assert_eq!(find("lc0h"), None);
    });
}

#[test]
fn the_hosts_network_is_not_changed_from_a_site_that_shares_it() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let lo = Target::Name(LinkName::lo());
        let up = LinkSet { scoped: true, ..LinkSet::up(lo.clone()) };
        assert!(bench.apply(&up).1.unwrap_err().what.contains("shares the host's network"));
        owner().apply(&up).1.unwrap();
        // Up as it is on a host: there is nothing to change.
        bench.apply(&up).1.unwrap();
        let before = state();
        let address = AddressAdd { link: lo.clone(), address: net("127.9.9.9/32"), scoped: true };
        let route = RouteAdd { link: lo.clone(), to: net("192.0.2.0/24"), via: None, scoped: true };
        let smaller = LinkSet { mtu: Some(1400), ..up };
        for effect in [&address as &dyn Effect, &route, &smaller] {
            assert!(bench.apply(effect).1.unwrap_err().what.contains("shares the host's network"));
        }
        assert_eq!(state(), before);
    });
}

#[test]
fn a_process_that_has_ended_is_named() {
    let other = Other::new();
    let process = other.process.clone();
    drop(other);
    let error = Netns::of(&process).unwrap_err();
    assert_eq!(error.what, format!("process {} has ended, and its network namespace with it", process.pid));
}

#[expect(clippy::disallowed_methods, reason = "nobody looks at a test")]
#[test]
fn without_the_capability_the_help_names_it() {
    in_a_network(|| {
        nix::unistd::setuid(65_534.into()).unwrap();
        let error = Bench::new().apply(&bridge("lc0")).1.unwrap_err();
        assert_eq!(error.errno, Some(nix::libc::EPERM));
        assert_eq!(error.what, "make bridge lc0");
        assert!(error.help.is_some_and(|help| help.contains("CAP_NET_ADMIN")));
    });
}

#[test]
fn a_missing_link_and_an_unreachable_router_are_explained() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let error = bench.apply(&LinkSet::up(Target::Name(name("eth7")))).1.unwrap_err();
        assert_eq!(error.what, "get link eth7");
        assert_eq!(error.errno, Some(nix::libc::ENODEV));
        let lo = Target::Name(LinkName::lo());
        bench.apply(&LinkSet::up(lo.clone())).1.unwrap();
        let route = RouteAdd { link: lo, to: net("0.0.0.0/0"), via: Some("10.1.1.1".parse().unwrap()), scoped: false };
        let error = bench.apply(&route).1.unwrap_err();
        assert!(error.help.is_some(), "{error:?}");
        assert!(error.what.contains("Nexthop has invalid gateway"), "{error:?}");
    });
}

#[test]
fn a_link_that_comes_later_is_waited_for_and_one_that_never_comes_is_named() {
    in_a_network(|| {
        let mut bench = Bench::new();
        let later = fork(|| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            Bench::new().apply(&bridge("late")).1.unwrap();
            0
        });
        bench.apply(&LinkWait { name: name("late"), within: Millis(10_000) }).1.unwrap();
        wait_for(later.unwrap());
        let error = bench.apply(&LinkWait { name: name("never"), within: Millis(50) }).1.unwrap_err();
        assert_eq!(error.what, "there is no link never after 50ms");
    });
}

/// A device with addresses of both families, a label and a route, lent to a process and given back, from every moment.
#[test]
fn a_device_comes_back_with_its_name_addresses_and_routes() {
    in_a_network(|| {
        let other = Other::new();
        let dir = tempfile::tempdir().unwrap();
        let ip = |words: &str| {
            let done = std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(done.success(), "ip {words}");
        };
        ip("link add dev0 type veth peer name dev1");
        ip("link set dev1 up");
        ip("link set dev0 mtu 1400 up");
        ip("addr add 192.0.2.1/24 label dev0:one dev dev0");
        ip("addr add 2001:db8::1/64 nodad dev dev0");
        ip("addr add 192.0.2.9/32 scope link dev dev0");
        ip("route add 198.51.100.0/24 via 192.0.2.7 dev dev0");
        // What the kernel gives both ends when they come up is there, and found to be nobody else's.
        let own_addresses = || {
            let shown = std::process::Command::new("ip").args(["-6", "addr"]).output().unwrap().stdout;
            let shown = String::from_utf8_lossy(&shown).into_owned();
            shown.matches("fe80").count() == 2 && !shown.contains("tentative")
        };
        eventually(own_addresses);
        let before = state();
        let process = Later::Now(other.process.clone());
        let pin = PinNetns { process: process.clone(), path: dir.path().join("netns") };
        let moved = |called: Option<&str>| MoveDevice {
            device: name("dev0"),
            name: called.map(name),
            process: process.clone(),
            pin: pin.path.clone(),
        };
        let mut bench = Bench::new();
        let (pinned, answer) = bench.apply(&pin);
        answer.unwrap();
        for wanted in [None, Some("data%d"), Some("data0")] {
            let effect = moved(wanted);
            let (record, answer) = bench.apply(&effect);
            answer.unwrap();
            assert!(find("dev0").is_none());
            other.inside(|| {
                let inside = find(if wanted.is_some() { "data0" } else { "dev0" }).expect("it is inside");
                assert!(inside.up);
                let shown = state().join("\n");
                assert!(shown.contains("192.0.2.1") && shown.contains("2001:db8::1"), "{shown}");
                assert!(!shown.contains("192.0.2.9"), "an address of less than global scope came along: {shown}");
            });
            // As if the engine had died before it knew, and then again after all.
            let unknown = Record { outcome: None, ..record.clone() };
            bench.undo(&effect, &unknown).unwrap();
            bench.undo(&effect, &record).unwrap();
            // The address that did not travel is not given back either.
            ip("addr add 192.0.2.9/32 scope link dev dev0");
            eventually(|| own_addresses() && state() == before);
        }
        // Its process has ended, and the pin alone keeps the namespace.
        let effect = moved(Some("data0"));
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        drop(other);
        bench.undo(&effect, &record).unwrap();
        assert!(find("dev0").is_some());
        for _ in 0..2 {
            bench.undo(&pin, &pinned).unwrap();
            assert!(!pin.path.exists());
        }
    });
}

/// Its other end is deleted while it comes back, a little later in each round: what has gone is not missed, and no error.
#[test]
fn a_device_may_go_while_it_is_given_back() {
    in_a_network(|| {
        let other = Other::new();
        let process = Later::Now(other.process.clone());
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        let pin = PinNetns { process: process.clone(), path: dir.path().join("netns") };
        let (pinned, answer) = bench.apply(&pin);
        answer.unwrap();
        for round in 0..60 {
            let peer = Peer { name: name("dev1"), process: None, mac: None };
            let kind = Kind::Veth(peer);
            let cable = LinkAdd { name: name("dev0"), alias: "lifecycle:test:dev0".into(), kind, mtu: None };
            bench.apply(&cable).1.unwrap();
            let index = find("dev1").unwrap().index;
            let effect =
                MoveDevice { device: name("dev0"), name: None, process: process.clone(), pin: pin.path.clone() };
            let (record, answer) = bench.apply(&effect);
            answer.unwrap();
            let deleting = fork(|| {
                std::thread::sleep(std::time::Duration::from_micros(15 * round));
                let mut message = LinkMessage::default();
                message.header.index = index;
                Rtnl::open().unwrap().change(RouteNetlinkMessage::DelLink(message), 0).unwrap();
                0
            });
            bench.undo(&effect, &record).unwrap();
            wait_for(deleting.unwrap());
            assert!(find("dev0").is_none());
        }
        bench.undo(&pin, &pinned).unwrap();
    });
}

/// Waits for what the kernel does in its own time.
fn eventually(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it does not come about: {:#?}", state());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
