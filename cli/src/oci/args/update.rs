//! `update`

use std::path::PathBuf;

use clap::Args;

/// `update`
#[derive(Clone, Debug, Args)]
pub struct Update {
    /// The container's id
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// A file with `linux.resources` as in config.json, or `-` for stdin; other options do not count then
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period in microseconds; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up for later in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Relative weight of CPU time
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime CPU time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Only run when nothing else wants to: 1, or 0
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Kernel memory in bytes (no kernel of today limits it)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// TCP buffer memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Memory in bytes, or with a unit such as 64M; -1: no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that the kernel tries to leave it, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together in bytes; -1: no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How many processes; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache, Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth, Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
}
