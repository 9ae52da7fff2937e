//! Mount options as config.md's table ("Linux mount options") and fstab(5) write them.

use crate::sys::mount as attr;
use nix::libc;
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

/// A bind mount, of one mount or of all below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// `bind`
    One,
    /// `rbind`
    Recursive,
}

/// How mount events travel, mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// Into the mount alone.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and no bind.
    Unbindable,
}

impl std::fmt::Display for Propagation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Slave => "slave",
            Self::Private => "private",
            Self::Unbindable => "unbindable",
        })
    }
}

impl Propagation {
    /// The flag of mount(2) and mount_setattr(2).
    pub fn flag(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What a list of options asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A bind mount.
    pub bind: Option<Bind>,
    /// Attributes of this mount to set, as `MOUNT_ATTR_*`.
    pub set: u64,
    /// Attributes of this mount to clear.
    pub clear: u64,
    /// Attributes of this mount and all below it to set.
    pub recursive_set: u64,
    /// Attributes of this mount and all below it to clear.
    pub recursive_clear: u64,
    /// Propagation, and whether for all mounts below too; in order.
    pub propagation: Vec<(Propagation, bool)>,
    /// Copy what the directory holds into the new tmpfs.
    pub copy_up: bool,
    /// Map ids, and whether those of all mounts below too.
    pub id_map: Option<bool>,
    /// Change a mount that the container has already.
    pub remount: bool,
    /// Flags of the file system itself that every one has, by their option's name.
    pub super_flags: Vec<&'static str>,
    /// For the file system itself: flags, and `key=value`.
    pub data: Vec<String>,
    /// The SELinux context of everything in the file system.
    pub context: Option<String>,
}

/// The flags that every file system has, mount(2).
const SUPER_FLAGS: &[(&str, MountFlags)] = &[
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("lazytime", MountFlags::LAZYTIME),
    (IVERSION, MountFlags::from_bits_retain(libc::MS_I_VERSION)),
];

/// The flag that the newer calls have no name for.
const IVERSION: &str = "iversion";

/// Which flag an option takes away.
const WITHOUT_SUPER_FLAG: &[(&str, &str)] = &[("async", "sync"), ("nolazytime", "lazytime"), ("noiversion", IVERSION)];

/// How one option changes an attribute.
enum Change {
    Set(u64),
    Clear(u64),
    /// A choice among the access time settings replaces the others.
    Atime(u64),
}

/// The options that are attributes of a mount. Each also exists with an `r` in front, for all mounts below.
const ATTRIBUTES: &[(&str, Change)] = &[
    ("ro", Change::Set(attr::RDONLY)),
    ("rw", Change::Clear(attr::RDONLY)),
    ("nosuid", Change::Set(attr::NOSUID)),
    ("suid", Change::Clear(attr::NOSUID)),
    ("nodev", Change::Set(attr::NODEV)),
    ("dev", Change::Clear(attr::NODEV)),
    ("noexec", Change::Set(attr::NOEXEC)),
    ("exec", Change::Clear(attr::NOEXEC)),
    ("nodiratime", Change::Set(attr::NODIRATIME)),
    ("diratime", Change::Clear(attr::NODIRATIME)),
    ("nosymfollow", Change::Set(attr::NOSYMFOLLOW)),
    ("symfollow", Change::Clear(attr::NOSYMFOLLOW)),
    ("noatime", Change::Atime(attr::NOATIME)),
    ("atime", Change::Atime(attr::RELATIME)),
    ("relatime", Change::Atime(attr::RELATIME)),
    ("norelatime", Change::Atime(attr::RELATIME)),
    ("strictatime", Change::Atime(attr::STRICTATIME)),
    ("nostrictatime", Change::Atime(attr::RELATIME)),
];

/// The options that say how mount events travel. Each also exists with an `r` in front, for all mounts below.
const PROPAGATIONS: &[(&str, Propagation)] = &[
    ("shared", Propagation::Shared),
    ("slave", Propagation::Slave),
    ("private", Propagation::Private),
    ("unbindable", Propagation::Unbindable),
];

/// The options that make a mount another kind of mount.
const KINDS: &[&str] = &["bind", "rbind", "tmpcopyup", "idmap", "ridmap", "remount"];

/// Every option that is not the file system's own: what `features` tells.
pub fn known() -> impl Iterator<Item = String> {
    let twice = |name: &'static str| [name.to_owned(), format!("r{name}")];
    let attributes = ATTRIBUTES.iter().flat_map(move |(name, _)| twice(name));
    let propagations = PROPAGATIONS.iter().flat_map(move |(name, _)| twice(name));
    let plain = KINDS.iter().chain(WITHOUT_EFFECT).map(|name| (*name).to_owned());
    let flags = SUPER_FLAGS.iter().map(|(name, _)| name).chain(WITHOUT_SUPER_FLAG.iter().map(|(name, _)| name));
    attributes.chain(propagations).chain(plain).chain(flags.map(|name| (*name).to_owned()))
}

/// Options that say what holds anyway, or that the kernel has long forgotten.
const WITHOUT_EFFECT: &[&str] = &["defaults", "loud", "nomand", "silent"];

impl Options {
    /// Reads a list. The error names the option.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        list.iter().try_for_each(|option| options.add(option))?;
        if options.copy_up && options.bind.is_some() {
            return Err("tmpcopyup fills a tmpfs; it has no meaning for a bind mount".into());
        }
        if options.id_map.is_some() && options.bind.is_none() {
            return Err("idmap needs a bind mount; add `bind` or `rbind`".into());
        }
        if options.remount && (options.copy_up || options.id_map.is_some()) {
            return Err("tmpcopyup and idmap are for new mounts; leave `remount` out".into());
        }
        let of_file_system = options.super_flags.first().copied().or(options.data.first().map(String::as_str));
        if let Some(option) = of_file_system.filter(|_| options.bind.is_some()) {
            return Err(format!(
                "`{option}` is an option of a file system, and a bind mount shares its file system with the host"
            ));
        }
        if options.bind.is_none() && !options.remount {
            options.fold_recursive();
        }
        Ok(options)
    }

    /// A new file system has nothing mounted below it.
    fn fold_recursive(&mut self) {
        self.clear = (self.clear | self.recursive_clear) & !(self.recursive_set & !attr::ATIME);
        if self.recursive_clear & attr::ATIME != 0 {
            self.set &= !attr::ATIME;
        }
        self.set = (self.set & !(self.recursive_clear & !attr::ATIME)) | self.recursive_set;
        (self.recursive_set, self.recursive_clear) = (0, 0);
    }

    /// Whether only mount(2) can perform it.
    pub fn needs_classic(&self) -> bool {
        self.super_flags.contains(&IVERSION)
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        if self.add_attribute(option)
            || self.add_propagation(option)
            || self.add_super_flag(option)
            || WITHOUT_EFFECT.contains(&option)
        {
            return Ok(());
        }
        match option {
            "bind" => self.bind = self.bind.or(Some(Bind::One)),
            "rbind" => self.bind = Some(Bind::Recursive),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "remount" => self.remount = true,
            "mand" => return Err("`mand` cannot be had: kernels have no mandatory locks since 5.15".into()),
            "" => return Err("an option is empty".into()),
            _ if option.contains('\0') => return Err("an option cannot contain a NUL byte".into()),
            _ => self.data.push(option.to_owned()),
        }
        Ok(())
    }

    fn add_attribute(&mut self, option: &str) -> bool {
        let find = |name: &str| ATTRIBUTES.iter().find(|(candidate, _)| *candidate == name).map(|(_, change)| change);
        // `ro` and `relatime` begin with an `r` of their own.
        let (change, recursive) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(change), _) => (change, false),
            (None, Some(change)) => (change, true),
            (None, None) => return false,
        };
        let (set, clear) = if recursive {
            (&mut self.recursive_set, &mut self.recursive_clear)
        } else {
            (&mut self.set, &mut self.clear)
        };
        match *change {
            Change::Set(bit) => {
                *set |= bit;
                *clear &= !bit;
            }
            Change::Clear(bit) => {
                *clear |= bit;
                *set &= !bit;
            }
            // The kernel wants the whole group cleared whenever one of it is set.
            Change::Atime(bit) => {
                *clear |= attr::ATIME;
                *set = (*set & !attr::ATIME) | bit;
            }
        }
        true
    }

    fn add_super_flag(&mut self, option: &str) -> bool {
        if let Some((_, taken)) = WITHOUT_SUPER_FLAG.iter().find(|(name, _)| *name == option) {
            self.super_flags.retain(|flag| flag != taken);
            return true;
        }
        let Some((name, _)) = SUPER_FLAGS.iter().find(|(name, _)| *name == option) else { return false };
        if !self.super_flags.contains(name) {
            self.super_flags.push(name);
        }
        true
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let find = |name: &str| PROPAGATIONS.iter().find(|(candidate, _)| *candidate == name).map(|(_, kind)| *kind);
        let (kind, recursive) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(kind), _) => (kind, false),
            (None, Some(kind)) => (kind, true),
            (None, None) => return false,
        };
        self.propagation.push((kind, recursive));
        true
    }

    /// The flags of the file system itself, for mount(2).
    pub fn super_flags(&self) -> MountFlags {
        SUPER_FLAGS.iter().filter(|(name, _)| self.super_flags.contains(name)).map(|(_, flag)| *flag).collect()
    }

    /// Whether any attribute is asked for.
    pub fn has_attributes(&self) -> bool {
        self.set | self.clear | self.recursive_set | self.recursive_clear != 0
    }

    /// The attributes to set as mount(2)'s flags. Its flags replace all of a mount's, so `present`, those that the mount has, are kept
    /// unless they are cleared: in a user namespace some are locked, and a call without them is refused.
    pub fn flags(&self, present: MountFlags) -> MountFlags {
        let set = self.set | self.recursive_set;
        let cleared = (self.clear | self.recursive_clear) & !set;
        let mut flags = present;
        for (bit, flag) in FLAGS {
            flags.set(*flag, (flags.contains(*flag) && cleared & bit == 0) || set & bit != 0);
        }
        flags
    }
}

const FLAGS: &[(u64, MountFlags)] = &[
    (attr::RDONLY, MountFlags::RDONLY),
    (attr::NOSUID, MountFlags::NOSUID),
    (attr::NODEV, MountFlags::NODEV),
    (attr::NOEXEC, MountFlags::NOEXEC),
    (attr::NOATIME, MountFlags::NOATIME),
    (attr::STRICTATIME, MountFlags::STRICTATIME),
    (attr::NODIRATIME, MountFlags::NODIRATIME),
    (attr::NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn attributes_propagation_and_data_are_told_apart() {
        let options = parse("nosuid,strictatime,mode=755,size=65536k,rslave,noswap");
        assert_eq!(options.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(options.clear, attr::ATIME);
        assert_eq!(options.propagation, [(Propagation::Slave, true)]);
        assert_eq!(options.data, ["mode=755", "size=65536k", "noswap"]);
    }

    #[test]
    fn recursive_attributes_are_not_those_that_begin_with_an_r() {
        assert_eq!(parse("ro").set, attr::RDONLY);
        assert_eq!(parse("rbind,rro").recursive_set, attr::RDONLY);
        assert_eq!(parse("rbind,rrw").recursive_clear, attr::RDONLY);
        assert_eq!(parse("relatime").clear, attr::ATIME);
        assert_eq!(parse("rbind,rrelatime").recursive_clear, attr::ATIME);
        assert_eq!(parse("rbind").bind, Some(Bind::Recursive));
        assert_eq!(parse("rbind,rnosymfollow").recursive_set, attr::NOSYMFOLLOW);
    }

    #[test]
    fn the_last_one_wins() {
        assert_eq!((parse("ro,rw").set, parse("ro,rw").clear), (0, attr::RDONLY));
        assert_eq!(parse("noatime,strictatime").set, attr::STRICTATIME);
        assert_eq!(parse("rbind,bind").bind, Some(Bind::Recursive));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let refused = |text: &str| Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_err();
        assert!(refused("bind,tmpcopyup").contains("tmpcopyup"));
        assert!(refused("idmap").contains("idmap"));
        assert!(refused("bind,sync").contains("sync"));
        assert!(refused("rbind,size=1m").contains("size=1m"));
        assert!(refused("remount,tmpcopyup").contains("remount"));
        assert!(refused("mand").contains("mand"));
    }

    /// config.md, "Linux mount options": every name of the table but `mand`, which no kernel has any more.
    #[test]
    fn every_option_of_the_specs_table_is_known() {
        for option in "async atime defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion \
                       nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rdev rdiratime relatime remount rexec \
                       rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow rnodev ro rprivate rrelatime rro rrw \
                       rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync \
                       tmpcopyup unbindable"
            .split_whitespace()
        {
            assert_eq!(parse(option).data, [""; 0], "{option} went to the file system");
        }
        for option in ["bind", "rbind"] {
            assert!(parse(option).bind.is_some());
        }
        for option in ["idmap", "ridmap"] {
            assert_eq!(parse(&format!("bind,{option}")).id_map, Some(option == "ridmap"));
        }
    }

    #[test]
    fn a_file_systems_own_flags_are_no_data() {
        let options = parse("sync,lazytime,async,dirsync,iversion");
        assert_eq!(options.super_flags, ["lazytime", "dirsync", "iversion"]);
        assert!(options.super_flags().contains(MountFlags::LAZYTIME | MountFlags::DIRSYNC));
        assert!(options.needs_classic() && options.data.is_empty());
    }

    #[test]
    fn a_new_file_system_has_nothing_below_it() {
        let options = parse("ro,rrw,rnosuid,noatime,rstrictatime");
        assert_eq!((options.recursive_set, options.recursive_clear), (0, 0));
        assert_eq!(options.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(options.clear, attr::RDONLY | attr::ATIME);
    }

    #[test]
    fn the_older_call_keeps_what_a_mount_has() {
        let flags = parse("ro").flags(MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(parse("rw,suid").flags(MountFlags::NOSUID | MountFlags::RDONLY), MountFlags::empty());
    }
}
