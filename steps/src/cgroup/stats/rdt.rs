//! What a container has and uses of cache and memory bandwidth: the resctrl file system, Documentation/filesystems/resctrl.rst.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{number, text};
use super::{CmtStats, IntelRdt, L3CacheInfo, MbmStats, MemBwInfo};

/// Reads a class of service, and the monitoring data of a group whose processes are the container's alone. A file that the kernel does not have,
/// or a group that is gone, counts nothing; the error is the kernel's for one that cannot be read.
pub fn rdt(class: &Path, counted: Option<&Path>) -> io::Result<IntelRdt> {
    // The class that all are in at first is the file system's own top.
    let top = if class.join("info").is_dir() { class } else { class.parent().unwrap_or(class) };
    let (own, all) = (text(class, "schemata")?, text(top, "schemata")?);
    let mut rdt = IntelRdt {
        l3_cache_info: l3_cache_info(&top.join("info"))?,
        l3_cache_schema_root: line(&all, "L3"),
        l3_cache_schema: line(&own, "L3"),
        mem_bw_info: mem_bw_info(&top.join("info/MB"))?,
        mem_bw_schema_root: line(&all, "MB"),
        mem_bw_schema: line(&own, "MB"),
        ..IntelRdt::default()
    };
    if let Some(group) = counted {
        monitored(&group.join("mon_data"), &text(&top.join("info/L3_MON"), "mon_features")?, &mut rdt)?;
    }
    Ok(rdt)
}

/// The resource's line of a schemata file, without the blanks that the kernel pads it with.
fn line(schemata: &str, resource: &str) -> String {
    let of = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name == resource);
    schemata.lines().map(str::trim).find(of).unwrap_or_default().to_owned()
}

fn l3_cache_info(info: &Path) -> io::Result<Option<L3CacheInfo>> {
    // With code and data prioritized apart, each has a directory, and they say the same.
    let Some(at) = ["L3", "L3CODE"].map(|name| info.join(name)).into_iter().find(|at| at.is_dir()) else {
        return Ok(None);
    };
    Ok(Some(L3CacheInfo {
        cbm_mask: text(&at, "cbm_mask")?.trim().to_owned(),
        min_cbm_bits: number(&at, "min_cbm_bits")?,
        num_closids: number(&at, "num_closids")?,
    }))
}

fn mem_bw_info(at: &Path) -> io::Result<Option<MemBwInfo>> {
    if !at.is_dir() {
        return Ok(None);
    }
    Ok(Some(MemBwInfo {
        bandwidth_gran: number(at, "bandwidth_gran")?,
        delay_linear: number(at, "delay_linear")?,
        min_bandwidth: number(at, "min_bandwidth")?,
        num_closids: number(at, "num_closids")?,
    }))
}

/// One entry for each memory node, in their order: `mon_L3_00`, `mon_L3_01`, … A number that the processor does not have now (`Unavailable`) is
/// zero, as Go's callers read its absence.
fn monitored(data: &Path, features: &str, rdt: &mut IntelRdt) -> io::Result<()> {
    let has = |event: &str| features.split_whitespace().any(|name| name == event);
    let nodes = nodes(data)?;
    if has("mbm_total_bytes") || has("mbm_local_bytes") {
        let one = |at: &PathBuf| {
            let (total, local) = (number(at, "mbm_total_bytes")?, number(at, "mbm_local_bytes")?);
            Ok(MbmStats { mbm_total_bytes: total, mbm_local_bytes: local })
        };
        rdt.mbm_stats = Some(nodes.iter().map(one).collect::<io::Result<_>>()?);
    }
    if has("llc_occupancy") {
        let one = |at: &PathBuf| Ok(CmtStats { llc_occupancy: number(at, "llc_occupancy")? });
        rdt.cmt_stats = Some(nodes.iter().map(one).collect::<io::Result<_>>()?);
    }
    Ok(())
}

fn nodes(data: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(data) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut nodes = Vec::new();
    for entry in entries {
        let entry = entry?;
        nodes.extend(Some(entry.path()).filter(|_| entry.file_name().to_string_lossy().starts_with("mon_L3_")));
    }
    nodes.sort_unstable();
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A directory tree like resctrl's, with a class that has a monitoring group.
    fn resctrl(features: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("info/L3/cbm_mask", "fffff\n");
        write("info/L3/min_cbm_bits", "2\n");
        write("info/L3/num_closids", "16\n");
        write("info/MB/bandwidth_gran", "10\n");
        write("info/MB/delay_linear", "1\n");
        write("info/MB/min_bandwidth", "10\n");
        write("info/MB/num_closids", "8\n");
        write("info/L3_MON/mon_features", features);
        write("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n");
        write("web/schemata", "    L3:0=0000f;1=000f0\n    MB:0= 20;1=100\n");
        for (node, numbers) in [("mon_L3_00", ["4096", "700", "300"]), ("mon_L3_01", ["8192", "Unavailable", "5"])] {
            let files = ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"];
            for (file, number) in files.iter().zip(numbers) {
                write(&format!("web/mon_groups/web/mon_data/{node}/{file}"), &format!("{number}\n"));
            }
        }
        dir
    }

    #[test]
    fn a_class_and_its_monitoring_are_told_as_runc_tells_them() {
        let dir = resctrl("llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
        let class = dir.path().join("web");
        let told = json!(rdt(&class, Some(&class.join("mon_groups/web"))).unwrap());
        let expected = json!({
            "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16 },
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=0000f;1=000f0",
            "mem_bw_info": { "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8 },
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 20;1=100",
            "mbm_stats": [{ "mbm_total_bytes": 700, "mbm_local_bytes": 300 }, { "mbm_local_bytes": 5 }],
            "cmt_stats": [{ "llc_occupancy": 4096 }, { "llc_occupancy": 8192 }],
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_not_watched_is_left_out() {
        let dir = resctrl("llc_occupancy\n");
        let class = dir.path().join("web");
        let monitor = class.join("mon_groups/web");
        let told = rdt(&class, Some(&monitor)).unwrap();
        assert!(told.mbm_stats.is_none() && told.cmt_stats.is_some());
        let told = rdt(&class, None).unwrap();
        assert!(told.mbm_stats.is_none() && told.cmt_stats.is_none() && !told.l3_cache_schema.is_empty());
        // The class that all are in, and one that is gone.
        assert_eq!(rdt(dir.path(), None).unwrap().l3_cache_schema, "L3:0=fffff;1=fffff");
        let gone = rdt(&dir.path().join("gone"), Some(&dir.path().join("gone/mon_groups/x"))).unwrap();
        assert_eq!((gone.l3_cache_schema.as_str(), gone.cmt_stats), ("", Some(Vec::new())));
    }
}
