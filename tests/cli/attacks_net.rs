//! What a container with CAP_NET_ADMIN does to a network device that it was lent keeps nobody from getting that back, and gives nobody another
//! one in its place. The changes are made by root in the container's network namespace, as the container would.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program::output;
use serde_json::json;

use crate::boxed::Boxed;
use crate::fields_net::{cable, inside, ip, is_on_host, lent};
use crate::oci_scene::eventually;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_lent_device_comes_back_whatever_bytes_its_names_are_of,
        a_lent_device_comes_back_although_its_names_are_taken_on_the_host,
        a_lent_device_comes_back_with_its_own_address_alias_and_flags,
        a_lent_device_comes_back_out_of_a_nested_namespace,
        a_lent_device_that_was_destroyed_in_a_nested_namespace_is_told_of,
        a_device_that_was_made_in_the_place_of_a_lent_one_is_not_taken_for_it,
        a_lent_device_whose_name_is_taken_by_now_is_kept_until_it_can_be_given_back,
    ];
    let needs = [Root, Program("busybox"), Program("ip"), Program("nsenter"), Program("unshare")];
    tests.into_iter().map(|test| test.within("attacks_net").needs(&needs)).collect()
}

/// A container that sleeps and has been lent `lend0`, and its pid.
fn scene(lab: &Lab) -> lifecycle_tests::Result<(Boxed<'_>, i32)> {
    let container = lent(lab, "sleep 1000", &json!({ "lend0": {} }))?;
    let pid = container.create()?;
    assert!(!is_on_host("lend0"));
    Ok((container, pid))
}

/// `ip` with an argument of any bytes in the container's network.
fn renamed(pid: i32, words: &[&str], name: &[u8]) -> TestResult {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "ip", "link", "set"]).args(words).arg(OsStr::from_bytes(name));
    let done = command.output()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// All that the kernel says of the device, but for counters, once it has found the address that it makes itself to be nobody else's.
fn shown() -> lifecycle_tests::Result<String> {
    let shown = || output("ip", &["-d", "addr", "show", "dev", "lend0"]);
    eventually("an address to be found good", || Ok(!shown()?.contains("tentative")))?;
    shown()
}

pub fn a_lent_device_comes_back_whatever_bytes_its_names_are_of(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let before = shown()?;
    let (container, pid) = scene(lab)?;
    inside(pid, "link set lend0 down")?;
    // Another device's name is not read as text either.
    inside(pid, "link add theirs type bridge")?;
    renamed(pid, &["theirs", "name"], b"\xfe\x80")?;
    renamed(pid, &["lend0", "alias"], b"\xff")?;
    renamed(pid, &["lend0", "name"], b"\xff")?;
    container.delete().ended(0);
    assert_eq!(shown()?, before);
    Ok(container.scene.nothing_left()?)
}

pub fn a_lent_device_comes_back_although_its_names_are_taken_on_the_host(lab: &Lab) -> TestResult {
    cable("lend0")?;
    ip("link add taken0 type bridge")?;
    ip("link add taken1 type bridge")?;
    ip("link property add dev lend0 altname known0")?;
    let before = shown()?;
    let (container, pid) = scene(lab)?;
    inside(pid, "link set lend0 down")?;
    inside(pid, "link property del dev lend0 altname known0")?;
    inside(pid, "link property add dev lend0 altname taken0")?;
    inside(pid, "link property add dev lend0 altname lend0p")?;
    inside(pid, "link property add dev lend0 altname theirs0")?;
    inside(pid, "link set lend0 name taken1")?;
    container.delete().ended(0);
    assert_eq!(shown()?, before);
    Ok(container.scene.nothing_left()?)
}

pub fn a_lent_device_comes_back_with_its_own_address_alias_and_flags(lab: &Lab) -> TestResult {
    cable("lend0")?;
    ip("link set lend0 alias ours")?;
    let before = shown()?;
    let (container, pid) = scene(lab)?;
    for words in [
        "link set lend0 down",
        "link set lend0 address 02:00:00:00:00:66",
        "link set lend0 alias lifecycle:other:step",
        "link set lend0 promisc on allmulticast on arp off txqueuelen 7 group 9",
        "addr add 203.0.113.9/24 dev lend0",
    ] {
        inside(pid, words)?;
    }
    container.delete().ended(0);
    assert_eq!(shown()?, before);
    Ok(container.scene.nothing_left()?)
}

/// A process in a network namespace below the container's, and the device moved there.
fn nested(pid: i32) -> Result<Child, Box<dyn std::error::Error>> {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "unshare", "-n", "sleep", "1000"]).stdin(Stdio::null());
    let child = command.spawn()?;
    let net = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let (own, theirs) = (net("self"), net(&pid.to_string()));
    eventually("the nested namespace", || {
        let now = net(&child.id().to_string());
        Ok(now.is_some() && now != own && now != theirs)
    })?;
    inside(pid, &format!("link set lend0 netns {}", child.id()))?;
    Ok(child)
}

pub fn a_lent_device_comes_back_out_of_a_nested_namespace(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let before = shown()?;
    let (container, pid) = scene(lab)?;
    let mut child = nested(pid)?;
    container.delete().ended(0);
    let after = shown();
    child.kill()?;
    child.wait()?;
    assert_eq!(after?, before);
    Ok(container.scene.nothing_left()?)
}

pub fn a_lent_device_that_was_destroyed_in_a_nested_namespace_is_told_of(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let (container, pid) = scene(lab)?;
    let mut child = nested(pid)?;
    child.kill()?;
    child.wait()?;
    eventually("the kernel to destroy it", || Ok(!is_on_host("lend0p")))?;
    container.delete().ended(0).says(&["lend0 is gone", "destroyed by the container"]);
    assert!(!is_on_host("lend0"));
    Ok(())
}

pub fn a_device_that_was_made_in_the_place_of_a_lent_one_is_not_taken_for_it(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let (container, pid) = scene(lab)?;
    let link = inside(pid, "-o link show lend0")?;
    let index = link.split(':').next().unwrap_or_default().to_owned();
    let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    inside(pid, "link del lend0")?;
    inside(pid, &format!("link add lend0 index {index} address {mac} type veth peer name tap0"))?;
    assert!(inside(pid, "-o link show lend0")?.starts_with(&format!("{index}:")));
    let told = container.delete();
    assert!(!is_on_host("lend0"), "the container's own device is on the host, with the host's addresses");
    assert!(!output("ip", &["addr"])?.contains("192.0.0.1"));
    told.ended(0).says(&["lend0 is gone", "destroyed by the container"]);
    Ok(())
}

pub fn a_lent_device_whose_name_is_taken_by_now_is_kept_until_it_can_be_given_back(lab: &Lab) -> TestResult {
    cable("lend0")?;
    let before = shown()?;
    let (container, _) = scene(lab)?;
    ip("link add lend0 type bridge")?;
    let told = container.delete();
    assert_ne!(told.code, 0, "{}{}", told.out, told.err);
    ip("link del lend0")?;
    container.delete().ended(0);
    assert_eq!(shown()?, before);
    Ok(container.scene.nothing_left()?)
}
