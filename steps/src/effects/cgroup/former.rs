//! How a file of a cgroup gets back what it held: the kernel takes few of them as it shows them.

/// The writes that put `text`, which was read from `file` before `written` was written there, back. None: there is nothing to put back.
pub(super) fn former(file: &str, text: &str, written: &str) -> Vec<String> {
    let text = text.trim_end();
    if let Some(device) = of_one_device(file, written) {
        return vec![former_of_device(file, text, device, written)];
    }
    match file {
        // `oom_kill_disable 0`, and lines that are no setting.
        "memory.oom_control" => first_word_after(text, "oom_kill_disable").into_iter().collect(),
        // What a cgroup shows that is idle; the weight comes back with cpu.idle.
        "cpu.weight" if text == "0" => Vec::new(),
        // Every interface of the host: one write each.
        "net_prio.ifpriomap" => text.lines().map(str::to_owned).collect(),
        // `default 100`, and a line for each device.
        "io.weight" | "io.bfq.weight" => first_word_after(text, "default").into_iter().collect(),
        // No processors of its own: an empty line, since the kernel takes no empty write.
        _ if text.is_empty() => vec!["\n".to_owned()],
        _ => vec![text.to_owned()],
    }
}

fn first_word_after(text: &str, key: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    Some(rest.trim().to_owned())
}

/// The device, where the file holds one line for each and this write was about one.
fn of_one_device<'a>(file: &str, written: &'a str) -> Option<&'a str> {
    let lines_by_device = matches!(file, "io.max" | "io.latency" | "rdma.max" | "io.weight" | "io.bfq.weight")
        || (file.starts_with("blkio.") && file.ends_with("_device"));
    let (device, _) = written.split_once(' ')?;
    (lines_by_device && device != "default").then_some(device)
}

/// The device's own line, or what means that it has none.
fn former_of_device(file: &str, text: &str, device: &str, written: &str) -> String {
    if let Some(line) = text.lines().find(|line| line.split(' ').next() == Some(device)) {
        return line.to_owned();
    }
    let none = match file {
        "io.weight" | "io.bfq.weight" => "default".to_owned(),
        "io.latency" => "target=0".to_owned(),
        file if file.starts_with("blkio.") => "0".to_owned(),
        _ => {
            let keys = written.split(' ').skip(1).filter_map(|pair| pair.split_once('='));
            keys.map(|(key, _)| format!("{key}=max")).collect::<Vec<_>>().join(" ")
        }
    };
    format!("{device} {none}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_value_comes_back_as_it_was() {
        assert_eq!(former("pids.max", "max\n", "16"), ["max"]);
        assert_eq!(former("cpu.max", "max 100000\n", "1000 2000"), ["max 100000"]);
        assert_eq!(former("cpuset.cpus", "\n", "0"), ["\n"]);
    }

    #[test]
    fn a_device_gets_its_own_line_back_or_none() {
        let io = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(former("io.max", io, "8:0 rbps=5"), ["8:0 rbps=1 wbps=max riops=max wiops=max"]);
        assert_eq!(former("io.max", io, "8:16 wbps=5"), ["8:16 wbps=max"]);
        assert_eq!(former("io.weight", "default 100\n", "8:0 50"), ["8:0 default"]);
        assert_eq!(former("io.weight", "default 100\n8:0 7\n", "50"), ["100"]);
        assert_eq!(former("blkio.throttle.read_bps_device", "", "8:0 5"), ["8:0 0"]);
        let rdma = former("rdma.max", "", "mlx5 hca_handle=1 hca_object=2");
        assert_eq!(rdma, ["mlx5 hca_handle=max hca_object=max"]);
    }

    #[test]
    fn what_the_kernel_only_shows_is_not_written() {
        assert_eq!(former("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1"), ["0"]);
        assert!(former("cpu.weight", "0\n", "100").is_empty());
        assert_eq!(former("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5"), ["lo 0", "eth0 3"]);
    }
}
