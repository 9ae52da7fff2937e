//! When and where a process runs, and where its memory lies: sched_setattr(2), sched_setaffinity(2), ioprio_set(2), set_mempolicy(2) and
//! personality(2). All of them change the calling thread alone.

use super::check;
use nix::libc;
use std::io;

/// linux/sched/types.h, to the fields that Linux 5.3 has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// The structure's length in bytes; set by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub period: u64,
    /// With `SCHED_FLAG_UTIL_CLAMP_MIN`.
    pub util_min: u32,
    /// With `SCHED_FLAG_UTIL_CLAMP_MAX`.
    pub util_max: u32,
}

/// Sets the scheduling policy.
pub fn set_scheduler(attr: SchedAttr) -> io::Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: `attr` outlives the call and holds its own length; process 0 is the caller, and no flags are defined.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// The scheduling policy that is in force.
#[cfg(test)]
pub fn scheduler() -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    // SAFETY: `attr` outlives the call, and the kernel writes at most the length that is given.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<SchedAttr>() as u32, 0) };
    check(answer).map(|_| attr)
}

/// Lets the caller run on these CPUs alone: bit n of the mask is CPU n.
pub fn set_affinity(mask: &[u64]) -> io::Result<()> {
    // SAFETY: the mask outlives the call and has the length that is given in bytes; process 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// linux/ioprio.h.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// linux/ioprio.h.
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// Sets the I/O priority: the class's number in linux/ioprio.h, and the level in it.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    let value = class << IOPRIO_CLASS_SHIFT | level;
    // SAFETY: the call takes numbers alone; process 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the NUMA memory policy: `MPOL_*` and `MPOL_F_*`, and bit n of the mask for node n.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    let (mask, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the mask outlives the call. The kernel reads one bit less than it is told (set_mempolicy(2), "NOTES"), so no more than there are.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the execution domain.
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: the call takes a number alone.
    check(unsafe { libc::personality(persona.into()) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what is set goes with it.
    fn aside<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(body).join().unwrap())
    }

    #[test]
    fn a_policy_is_set_for_the_caller_alone() {
        let batch = SchedAttr { policy: libc::SCHED_BATCH as u32, nice: 7, ..SchedAttr::default() };
        let (policy, nice) = aside(|| {
            set_scheduler(batch).unwrap();
            let now = scheduler().unwrap();
            (now.policy, now.nice)
        });
        assert_eq!((policy, nice), (libc::SCHED_BATCH as u32, 7));
        assert_eq!(scheduler().unwrap().policy, libc::SCHED_OTHER as u32);
    }

    #[test]
    fn a_thread_can_be_kept_on_one_cpu() {
        let allowed = aside(|| {
            set_affinity(&[1]).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
        });
        assert_eq!(allowed, "0");
        assert_eq!(aside(|| set_affinity(&[0]).unwrap_err().raw_os_error()), Some(libc::EINVAL));
    }

    #[test]
    fn memory_can_be_bound_to_a_node() {
        let maps = aside(|| {
            // A kernel without NUMA has one place for memory, and no policy.
            match set_memory_policy(libc::MPOL_BIND as u32, &[1]) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => None,
                answer => {
                    answer.unwrap();
                    Some(std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default())
                }
            }
        });
        assert!(maps.is_none_or(|maps| maps.contains(" bind:0")), "the policy is not in force");
    }

    #[test]
    fn a_machine_of_32_bits_is_pretended() {
        let machine = aside(|| {
            set_personality(0x0008).unwrap();
            rustix::system::uname().machine().to_owned()
        });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(machine.as_c_str(), c"i686");
        }
    }

    #[test]
    fn io_waits_for_everybody_else() {
        aside(|| set_io_priority(3, 0)).unwrap();
        let error = aside(|| set_io_priority(7, 0)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
