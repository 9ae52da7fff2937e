//! `lifecycle-oci update`

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use lifecycle_engine::types::Size;
use lifecycle_steps::effects::Status;
use lifecycle_steps::spec::{BlockIo, Cpu, Memory, Pids, Resources};
use serde_json::json;

use crate::args::Update;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Params};

/// Changes the container's limits.
pub fn run(call: &Call, args: &Update) -> Result<ExitCode, Fault> {
    let resources = match &args.resources {
        Some(file) => read(file)?,
        None => flags(args)?,
    };
    if args.resources.is_none() && (args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some()) {
        call.log
            .warn("--kernel-memory and --kernel-memory-tcp change nothing: no kernel limits kernel memory by itself");
    }
    if Container::load(call, &args.id)?.status == Status::Stopped {
        return Err(Fault::new("container not running"));
    }
    let given = [("id".to_owned(), json!(args.id)), ("resources".to_owned(), json!(wanted(resources)))];
    let mut params = Params::from_iter(given);
    // Whatever a file says of cgroups, it says nothing of these.
    for (name, schema) in [("l3_cache_schema", &args.l3_cache_schema), ("mem_bw_schema", &args.mem_bw_schema)] {
        if let Some(schema) = schema {
            params.insert(name.into(), json!(schema));
        }
    }
    call.perform("oci/update", params)?;
    Ok(ExitCode::SUCCESS)
}

/// `linux.resources` from a file, or from stdin.
fn read(file: &Path) -> Result<Resources, Fault> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|e| Fault::failed(format!("cannot read {}", file.display()), &e))?;
    Resources::parse(&text)
        .map_err(|e| Fault::failed(format!("{} is not linux.resources of the runtime-spec", file.display()), &e))
}

/// Each by its own flag.
fn flags(args: &Update) -> Result<Resources, Fault> {
    let memory = Memory {
        limit: bytes("--memory", args.memory.as_deref())?,
        reservation: bytes("--memory-reservation", args.memory_reservation.as_deref())?,
        swap: bytes("--memory-swap", args.memory_swap.as_deref())?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: args.cpu_share,
        quota: args.cpu_quota,
        burst: args.cpu_burst,
        period: args.cpu_period,
        realtime_runtime: args.cpu_rt_runtime,
        realtime_period: args.cpu_rt_period,
        cpus: args.cpuset_cpus.clone(),
        mems: args.cpuset_mems.clone(),
        idle: args.cpu_idle,
    };
    Ok(Resources {
        memory: Some(memory),
        cpu: Some(cpu),
        pids: Some(Pids { limit: args.pids_limit }),
        block_io: Some(BlockIo { weight: args.blkio_weight, ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// `64M`, `1048576`, or -1 for none.
fn bytes(option: &str, given: Option<&str>) -> Result<Option<i64>, Fault> {
    let parse = |text: &str| match text {
        "-1" => Ok(-1),
        _ => Size::parse(text).map_err(|why| Fault::failed(option, &why)).and_then(|size| {
            i64::try_from(size.0).map_err(|_| Fault::new(format!("{option} {text:?} is more than any machine has")))
        }),
    };
    given.map(parse).transpose()
}

/// What callers mean by what they send: a zero is a field that Go has left empty, and memory without a limit has swap without one.
fn wanted(mut resources: Resources) -> Resources {
    if let Some(memory) = &mut resources.memory {
        for limit in [&mut memory.limit, &mut memory.reservation, &mut memory.swap] {
            limit.take_if(|limit| *limit == 0);
        }
        if memory.limit == Some(-1) {
            memory.swap.get_or_insert(-1);
        }
    }
    if let Some(pids) = &mut resources.pids {
        pids.limit.take_if(|limit| *limit == 0);
    }
    if let Some(weight) = &mut resources.block_io {
        weight.weight.take_if(|weight| *weight == 0);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_minus_one_is_none() {
        let read = |text| bytes("--memory", Some(text)).map_err(|fault| fault.message);
        assert_eq!(read("-1"), Ok(Some(-1)));
        assert_eq!(read("1048576"), Ok(Some(1 << 20)));
        assert_eq!(read("64M"), Ok(Some(64 << 20)));
        assert_eq!(bytes("--memory", None).ok(), Some(None));
        for text in ["", "-2", "x", "64Q"] {
            assert!(read(text).unwrap_err().contains("--memory"), "{text}");
        }
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap_either_and_zero_is_no_wish() {
        let of = |json: serde_json::Value| json!(wanted(Resources::parse(&json.to_string()).unwrap()));
        let told = of(json!({ "memory": { "limit": -1 }, "pids": { "limit": 0 }, "unknown": 1, "cpu": null }));
        assert_eq!((&told["memory"]["limit"], &told["memory"]["swap"]), (&json!(-1), &json!(-1)));
        assert_eq!(told["pids"]["limit"], json!(null));
        assert_eq!(of(json!({ "memory": { "limit": -1, "swap": 5 } }))["memory"]["swap"], 5);
    }
}
