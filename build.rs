//! Finds DPDK, compiles the shim over its inline functions and generates the bindings.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Oldest DPDK whose device and mempool interfaces the code uses.
const OLDEST: &str = "22.11";

/// Libraries linked directly; everything else (buses, mempool drivers, NIC drivers) is loaded by the
/// environment abstraction layer from the distribution's driver folder at run time.
const LIBRARIES: [&str; 7] = ["rte_acl", "rte_hash", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/dpdk/shim.c");
    println!("cargo:rerun-if-changed=src/dpdk/shim.h");
    let dpdk = find_dpdk();
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    let flags = compile_flags();
    // The shim must come before the libraries it calls.
    let mut shim = cc::Build::new();
    shim.file("src/dpdk/shim.c").opt_level(3).flag("-Wno-deprecated-declarations");
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("gnomon_shim");
    for library in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    generate_bindings(&flags);
    println!("cargo:rustc-env=GNOMON_DPDK_BUILD_VERSION={}", dpdk.version);
}

fn find_dpdk() -> pkg_config::Library {
    match pkg_config::Config::new().atleast_version(OLDEST).cargo_metadata(false).probe("libdpdk") {
        Ok(library) => library,
        Err(error) => {
            eprintln!("{error}");
            panic!(
                "\n\nDPDK {OLDEST} or newer was not found by pkg-config.\n\
                 On Debian 12 install it with: apt-get install libdpdk-dev pkg-config clang libclang-dev\n\
                 For a DPDK built by hand set PKG_CONFIG_PATH to the folder with libdpdk.pc.\n"
            )
        }
    }
}

/// Flags such as `-include rte_config.h -march=…`, which the pkg-config crate does not report.
fn compile_flags() -> Vec<String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(&program)
        .args(["--cflags", "libdpdk"])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let text = String::from_utf8(output.stdout).expect("pkg-config prints text");
    text.split_whitespace().map(str::to_owned).collect()
}

fn generate_bindings(flags: &[String]) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dpdk.rs");
    bindgen::Builder::default()
        .header("src/dpdk/shim.h")
        .clang_args(flags)
        .allowlist_function("gn_.*")
        .allowlist_function("rte_(eal_(init|cleanup|get_runtime_dir|hotplug_(add|remove)|mp_remote_launch|remote_launch|wait_lcore)|version|strerror)")
        .allowlist_function("rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|get_mtu|set_mtu|rss_reta_query|rss_hash_conf_get|socket_id)")
        .allowlist_function("rte_eth_(rx|tx)_queue_setup")
        .allowlist_function("rte_eth_(promiscuous_enable|link_get_nowait|stats_get|macaddr_get|dev_adjust_nb_rx_tx_desc)")
        .allowlist_function("rte_pktmbuf_pool_create|rte_mempool_(free|avail_count|in_use_count)")
        .allowlist_function("rte_ring_(create|free)|rte_get_tsc_hz|rte_thread_(un)?register")
        .allowlist_function("rte_acl_(create|add_rules|build|free|set_ctx_classify|classify)|rte_vect_set_max_simd_bitwidth")
        .allowlist_function("rte_hash_(create|free|add_key|lookup_bulk|max_key_id)")
        .allowlist_type("rte_eth_rss_reta_entry64|rte_eth_rx_mq_mode|gn_.*")
        .allowlist_var("GN_.*|SOCKET_ID_ANY|RTE_ACL_FIELD_TYPE_.*|RTE_ACL_MAX_PRIORITY|RTE_HASH_.*")
        .opaque_type("rte_mbuf|rte_mempool|rte_ring|rte_hash")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false)
        .generate()
        .unwrap_or_else(|error| panic!("bindgen failed on DPDK's headers: {error}\nIs libclang-dev installed?"))
        .write_to_file(&out)
        .expect("OUT_DIR is writable");
}
