//! Where runc and we differ, one by one.

/// What runc and we say in other words: theirs, and ours, which is never empty.
pub type Wording = (&'static str, &'static str);

/// Which step found it out, and where it looked.
pub const NOT_IN_PATH: Wording = (
    r#"runc create failed: unable to start container process: exec: "no-such-program": executable file not found in $PATH:"#,
    r#"step program (process.find): exec: "no-such-program": executable file not found in $PATH (the container's PATH is /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin):"#,
);
pub const NOT_THERE: Wording = (
    r#"runc create failed: unable to start container process: exec: "/no/such/program": stat /no/such/program: no such file or directory:"#,
    r#"step program (process.find): execve("/no/such/program"): No such file or directory (errno 2) (it is not there in the container, or the interpreter that it names (#! or ELF loader) is not):"#,
);
pub const NOT_EXECUTABLE: Wording = (
    r#"runc create failed: unable to start container process: exec: "/etc/passwd": permission denied:"#,
    r#"step program (process.find): execve("/etc/passwd"): Permission denied (errno 13) (it must be a file with the execute bit, readable by the container's user, on a mount without noexec):"#,
);
/// The same for exec.
pub const NOT_IN_PATH_OF_EXEC: Wording = (
    r#"exec failed: unable to start container process: exec: "no-such-program": executable file not found in $PATH:"#,
    NOT_IN_PATH.1,
);
pub const NOT_EXECUTABLE_BY_EXEC: Wording =
    (r#"exec failed: unable to start container process: exec: "/etc/passwd": permission denied:"#, NOT_EXECUTABLE.1);
/// runc leaves the tmpfs of /sys/fs/cgroup writable though the config says `ro`.
pub const CGROUPS_READ_ONLY: Wording = (
    "tmpfs /sys/fs/cgroup tmpfs rw,nosuid,nodev,noexec,relatime,mode=755\n",
    "tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,relatime,mode=755\n",
);
/// What covers a masked directory holds one inode, its top, and says what it is.
pub const MASKED: [Wording; 3] = [
    ("tmpfs /proc/acpi tmpfs ro,relatime\n", "mask /proc/acpi tmpfs ro,relatime,nr_inodes=2,mode=555\n"),
    ("tmpfs /sys/dev/block tmpfs ro,relatime\n", "mask /sys/dev/block tmpfs ro,relatime,nr_inodes=2,mode=555\n"),
    ("tmpfs /sys/firmware tmpfs ro,relatime\n", "mask /sys/firmware tmpfs ro,relatime,nr_inodes=2,mode=555\n"),
];
