//! `linux.netDevices`: devices of the host that a container has until it is deleted.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program::{output, quiet};
use serde_json::{Value, json};

use crate::boxed::Boxed;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        linux_net_devices_are_moved_with_their_addresses_and_come_back,
        linux_net_devices_name_is_the_name_inside,
        linux_net_devices_come_back_whatever_the_container_did_to_them,
        linux_net_devices_come_back_when_the_container_has_died,
        linux_net_devices_come_back_after_every_failure_and_crash,
        linux_net_devices_that_cannot_be_moved_are_refused,
        linux_net_devices_in_a_namespace_that_was_there_before,
    ];
    tests
        .into_iter()
        .map(|test| test.within("fields_net").needs(&[Root, Program("busybox"), Program("ip"), Program("nsenter")]))
        .collect()
}

/// Runs `ip` in the lab's network namespace.
pub(crate) fn ip(words: &str) -> lifecycle_tests::Result<()> {
    quiet("ip", &words.split(' ').collect::<Vec<_>>())
}

/// A cable with an end to lend: addresses of both families, a label, a route, and a scope that does not travel.
pub(crate) fn cable(device: &str) -> TestResult {
    let n = device.chars().last().unwrap_or('0');
    ip(&format!("link add {device} type veth peer name {device}p"))?;
    ip(&format!("link set {device}p up"))?;
    ip(&format!("link set {device} mtu 1400 up"))?;
    ip(&format!("addr add 192.0.{n}.1/24 label {device}:one dev {device}"))?;
    ip(&format!("addr add 2001:db8:{n}::1/64 nodad dev {device}"))?;
    ip(&format!("route add 198.51.10{n}.0/24 via 192.0.{n}.7 dev {device}"))?;
    // What the kernel gives a link that has just come up is there, and no longer tentative.
    for _ in 0..100 {
        let peer = format!("{device}p");
        let shown = |device: &str| output("ip", &["-6", "addr", "show", "dev", device]);
        let settled = |text: &str| text.contains("fe80") && !text.contains("tentative");
        if settled(&shown(device)?) && settled(&shown(&peer)?) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(format!("{device} does not come up").into())
}

/// A container with these devices that runs the script.
pub(crate) fn lent<'a>(lab: &'a Lab, script: &str, devices: &Value) -> lifecycle_tests::Result<Boxed<'a>> {
    let mut container = Boxed::runs(lab, script)?;
    container.edit(|config| {
        config["process"]["capabilities"] =
            json!({ "bounding": ["CAP_NET_ADMIN"], "permitted": ["CAP_NET_ADMIN"], "effective": ["CAP_NET_ADMIN"] });
        config["linux"]["netDevices"] = devices.clone();
    })?;
    Ok(container)
}

/// In the network namespace of a process.
pub(crate) fn inside(pid: i32, words: &str) -> lifecycle_tests::Result<String> {
    let target = pid.to_string();
    let words: Vec<&str> = ["-t", &target, "-n", "ip"].into_iter().chain(words.split(' ')).collect();
    output("nsenter", &words)
}

pub(crate) fn is_on_host(device: &str) -> bool {
    output("ip", &["link", "show", device]).is_ok()
}

pub fn linux_net_devices_are_moved_with_their_addresses_and_come_back(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let container = lent(lab, "sleep 100", &json!({ "lend0": {} }))?;
    let pid = container.create()?;
    assert!(!is_on_host("lend0"));
    let shown = inside(pid, "addr show dev lend0")?;
    for part in ["mtu 1400", ",UP", "inet 192.0.0.1/24", "lend0:one", "inet6 2001:db8::1/64"] {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    container.plan("oci/start", &["--keep"]).ended(0);
    container.delete().ended(0);
    // The same device with the same name, addresses and routes: all of that is part of what nothing_left compares.
    container.scene.nothing_left()?;
    assert!(output("ip", &["route"])?.contains("198.51.100.0/24 via 192.0.0.7 dev lend0"));
    Ok(())
}

pub fn linux_net_devices_name_is_the_name_inside(lab: &Lab) -> TestResult {
    cable("lend0")?;
    cable("lend1")?;
    let devices = json!({ "lend0": { "name": "eth0" }, "lend1": { "name": "data%d" } });
    let container = lent(lab, "ip -o link | cut -d: -f2 | cut -d@ -f1", &devices)?;
    let told = container.plan("oci/run", &[]).ended(0);
    let names: Vec<&str> = told.out.split_whitespace().collect();
    assert!(names.contains(&"eth0") && names.contains(&"data0") && !told.out.contains("lend"), "{names:?}");
    Ok(container.scene.nothing_left()?)
}

pub fn linux_net_devices_come_back_whatever_the_container_did_to_them(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let script = "ip link set lend0 down; ip addr flush dev lend0; ip link set lend0 name mine mtu 900; ip link show mine | grep -c 'mtu 900'";
    let container = lent(lab, script, &json!({ "lend0": {} }))?;
    assert_eq!(container.plan("oci/run", &[]).ended(0).out, "1\n");
    container.scene.nothing_left()?;
    // The container deletes it: there is nothing to give back, and that is said.
    container.bundle.runs(&["sh", "-c", "ip link del lend0"])?;
    let told = container.plan("oci/run", &[]).ended(0);
    assert!(told.err.contains("lend0 is gone"), "{}", told.err);
    assert!(!is_on_host("lend0"));
    Ok(())
}

pub fn linux_net_devices_come_back_when_the_container_has_died(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let container = lent(lab, "sleep 100", &json!({ "lend0": { "name": "eth0" } }))?;
    let pid = container.create()?;
    let process = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    while std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Its namespace stays as long as the device is in it.
    assert!(!is_on_host("lend0"));
    container.delete().ended(0);
    Ok(container.scene.nothing_left()?)
}

pub fn linux_net_devices_come_back_after_every_failure_and_crash(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let container = lent(lab, "true", &json!({ "lend0": { "name": "eth0" } }))?;
    for at in ["create/netns", "create/devices[\"lend0\"]", "create/rootfs", "create/state", "wait"] {
        for place in ["before", "after", "crash"] {
            let told = container.plan("oci/run", &["--fail-at", &format!("{at}:{place}")]);
            assert_eq!(told.code, if place == "crash" { 137 } else { 1 }, "{at}:{place}: {}{}", told.out, told.err);
            container.scene.told(&["recover"]).ended(0);
            container.scene.nothing_left().map_err(|error| format!("{at}:{place}: {error}"))?;
        }
    }
    Ok(())
}

pub fn linux_net_devices_that_cannot_be_moved_are_refused(lab: &Lab) -> TestResult {
    cable("lend0")?;
    cable("lend1")?;
    let mut container = lent(lab, "true", &json!({ "lend0": {} }))?;
    let mut refused = |devices: Value, words: &[&str]| -> TestResult {
        container.edit(|config| config["linux"]["netDevices"] = devices)?;
        container.plan("oci/run", &[]).ended(125).says(words);
        Ok(container.scene.nothing_left()?)
    };
    refused(json!({ "nosuch0": {} }), &["linux.netDevices.nosuch0", "no such device on the host"])?;
    refused(json!({ "lo": {} }), &["linux.netDevices.lo", "cannot be moved"])?;
    refused(json!({ "lend0": { "name": "lo" } }), &["linux.netDevices.lend0", "cannot be moved"])?;
    refused(json!({ "lend0": { "name": "a/b" } }), &["linux.netDevices.lend0", "not a network device's name"])?;
    refused(json!({ "lend0": { "name": "a%s" } }), &["linux.netDevices.lend0", "`a%s`"])?;
    refused(
        json!({ "lend0": { "name": "x" }, "lend1": { "name": "x" } }),
        &["linux.netDevices.lend1", "another device in the container"],
    )?;
    container.edit(|config| {
        config["linux"]["netDevices"] = json!({ "lend0": {} });
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
    })?;
    container.plan("oci/run", &[]).ended(125).says(&["linux.netDevices", "need a network namespace"]);
    // The caller's own, by path.
    container.edit(|config| {
        let own = json!({ "type": "network", "path": "/proc/self/ns/net" });
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(own);
        }
    })?;
    container.plan("oci/run", &[]).ended(1).says(&["shares the network namespace of its caller"]);
    Ok(container.scene.nothing_left()?)
}

pub fn linux_net_devices_in_a_namespace_that_was_there_before(lab: &Lab) -> TestResult {
    cable("lend0")?;
    ip("netns add theirs")?;
    quiet("ip", &["-n", "theirs", "link", "add", "eth0", "type", "bridge"])?;
    let mut container = lent(lab, "ip -o link | grep -c lend0", &json!({ "lend0": { "name": "eth0" } }))?;
    container.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({ "type": "network", "path": "/run/netns/theirs" }));
        }
    })?;
    container
        .plan("oci/run", &[])
        .ended(1)
        .says(&["there is a device eth0 in the container's network namespace already"]);
    container.scene.nothing_left()?;
    container.edit(|config| config["linux"]["netDevices"] = json!({ "lend0": {} }))?;
    assert_eq!(container.plan("oci/run", &[]).ended(0).out, "1\n");
    container.scene.nothing_left()?;
    // Gone while the container is there: pinned, it gives the device back all the same.
    container.create()?;
    ip("netns del theirs")?;
    container.delete().ended(0);
    assert!(is_on_host("lend0"));
    Ok(())
}
