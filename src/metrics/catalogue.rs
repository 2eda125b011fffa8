//! Every metric there is. `docs/metrics.md` lists the same; a test compares them.

/// How values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Labels that tell its series apart.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

const WORKER: &[&str] = &["worker"];
const PORT: &[&str] = &["port"];
const RULE: &[&str] = &["rule"];
const SESSION: &[&str] = &["session"];
const OUTPUT: &[&str] = &["output"];
const COLLECTOR: &[&str] = &["collector"];
const POOL: &[&str] = &["pool"];

/// In the order of the page.
pub const CATALOGUE: &[Metric] = &[
    gauge("gnomon_build_info", &["version"], "Always 1; the version is the label."),
    gauge("gnomon_start_time_seconds", &[], "When this run started, in seconds since the Unix epoch."),
    gauge("gnomon_policy_generation", &[], "Number of the policy in force."),
    gauge("gnomon_resident_memory_bytes", &[], "Memory of the process that is in RAM, without hugepages."),
    // Devices.
    gauge("gnomon_port_up", PORT, "Whether the port has a link."),
    counter("gnomon_port_received_packets_total", PORT, "Packets that the device received."),
    counter("gnomon_port_received_bytes_total", PORT, "Bytes that the device received."),
    counter("gnomon_port_sent_packets_total", PORT, "Packets that the device sent."),
    counter("gnomon_port_sent_bytes_total", PORT, "Bytes that the device sent."),
    counter(
        "gnomon_port_missed_packets_total",
        PORT,
        "Packets lost by the device because no worker fetched them in time.",
    ),
    counter(
        "gnomon_port_no_buffer_packets_total",
        PORT,
        "Packets lost by the device because no packet buffer was free.",
    ),
    counter(
        "gnomon_port_receive_errors_total",
        PORT,
        "Packets received with errors, such as a wrong checksum of the frame.",
    ),
    counter("gnomon_port_send_errors_total", PORT, "Packets that the device failed to send."),
    gauge(
        "gnomon_pool_buffers",
        POOL,
        "Buffers of a pool: packets, headers of clones for mirror copies, or fronts for wrapped ones.",
    ),
    gauge("gnomon_pool_free_buffers", POOL, "Buffers of a pool that are free."),
    // Workers: received = forwarded + consumed + dropped.
    counter("gnomon_received_packets_total", WORKER, "Packets that entered the pipeline."),
    counter("gnomon_received_bytes_total", WORKER, "Bytes that entered the pipeline."),
    counter("gnomon_forwarded_packets_total", WORKER, "Packets handed to the paired port."),
    counter("gnomon_forwarded_bytes_total", WORKER, "Bytes handed to the paired port."),
    counter("gnomon_consumed_packets_total", WORKER, "Packets that end in the appliance on purpose."),
    counter("gnomon_diverted_packets_total", WORKER, "Packets to and from honeypots, forwarded ones too."),
    counter(
        "gnomon_dropped_packets_total",
        &["reason"],
        "Packets dropped, by reason; reasons that never occurred are left out.",
    ),
    counter("gnomon_generated_packets_total", WORKER, "Answers to rejected packets that were sent."),
    counter("gnomon_generated_lost_packets_total", WORKER, "Answers to rejected packets that could not be sent."),
    counter("gnomon_redistributed_packets_total", WORKER, "Packets handed to the worker that owns their flow."),
    counter("gnomon_polls_total", &["worker", "result"], "Looks at a receive queue: `empty`, or `packets`."),
    histogram(
        "gnomon_latency_seconds",
        WORKER,
        "Time of forwarded packets in the appliance, from the poll that received them to the end of the flush that sent them.",
    ),
    histogram("gnomon_batch_packets", WORKER, "Packets that a poll of a receive queue brought, empty polls left out."),
    // Rules and mirrors.
    counter("gnomon_rule_packets_total", RULE, "Packets that the rule decided."),
    counter("gnomon_rule_bytes_total", RULE, "Bytes that the rule decided."),
    counter(
        "gnomon_rule_would_packets_total",
        RULE,
        "Packets that the rule would have decided in shadow mode, or noted as a log rule.",
    ),
    counter("gnomon_mirror_selected_packets_total", SESSION, "Packets that the session wanted after sampling."),
    counter("gnomon_mirror_copied_packets_total", SESSION, "Copies sent."),
    counter("gnomon_mirror_copied_bytes_total", SESSION, "Bytes of the copies sent."),
    counter(
        "gnomon_mirror_lost_packets_total",
        &["session", "cause"],
        "Copies not sent: `pool`, no buffer was free; `queue`, the port was full; `link`, it was down; `oversize`, larger than the \
         target's MTU; `cap`, beyond what the target may get; `budget`, beyond what all that adapt may send; `no_neighbour`, nobody answered for the next hop's address; `down`, the \
         collector failed its health checks; `duplicate`, the packet was seen elsewhere a moment ago.",
    ),
    gauge(
        "gnomon_mirror_collectors",
        &["target", "state"],
        "Collectors whose MAC address is looked for or whose health is checked: `up`, `down`, or `no_neighbour`.",
    ),
    // Flows and records.
    gauge("gnomon_flows_live", WORKER, "Flows in the table."),
    gauge("gnomon_flow_table_capacity_flows", WORKER, "Flows that fit the table."),
    gauge("gnomon_flow_table_pressure", &[], "1 while an alert of kind table_pressure is open."),
    counter("gnomon_flows_inserted_total", WORKER, "Flows that were new."),
    counter(
        "gnomon_flows_evicted_total",
        &["worker", "kind"],
        "Flows that ended because another one needed their place: `half_open`, `closed`, or `idle` for long.",
    ),
    gauge(
        "gnomon_flows_disposable",
        WORKER,
        "Flows in the table that are half-open, one-way or over: the first to be evicted.",
    ),
    counter("gnomon_flow_slices_forced_total", WORKER, "Interim records made because a counter of the flow was full."),
    counter(
        "gnomon_uncached_verdicts_total",
        WORKER,
        "Verdicts not kept with their flow because there were too many different ones.",
    ),
    counter("gnomon_untracked_packets_total", WORKER, "Packets judged without a flow because the table was full."),
    counter(
        "gnomon_fragments_total",
        &["worker", "result"],
        "Later fragments that were `resolved` to the flow of their first one or `missed` it, and first ones `evicted` for want of room.",
    ),
    counter("gnomon_icmp_errors_total", WORKER, "ICMP errors that quote a packet."),
    counter(
        "gnomon_icmp_errors_bound_total",
        WORKER,
        "ICMP errors about a flow that was known: judged by its verdict and counted in its record.",
    ),
    counter("gnomon_flow_records_total", WORKER, "Flow records handed to the scorer."),
    counter("gnomon_flow_records_lost_total", WORKER, "Flow records lost because the scorer was behind."),
    counter(
        "gnomon_observations_lost_total",
        WORKER,
        "ARP messages and long DNS names lost because the scorer was behind.",
    ),
    // Scorer and outputs.
    counter("gnomon_scorer_records_total", &[], "Flow records that the scorer took."),
    counter("gnomon_scorer_scored_records_total", &[], "Flow records that got a score."),
    counter("gnomon_scorer_outlier_records_total", &[], "Flow records at or above the outlier threshold."),
    gauge(
        "gnomon_model_version",
        &["role"],
        "Number of the model for all traffic: `active`, or `shadow`; 0 without one.",
    ),
    gauge(
        "gnomon_model_age_seconds",
        &[],
        "Time since the last record that the active model was trained on; 0 without one.",
    ),
    gauge("gnomon_model_groups", &[], "Groups with a model of their own."),
    counter("gnomon_model_swaps_total", &[], "Models that came in force, at the start too."),
    counter("gnomon_model_rejected_total", &[], "Trained models that a gate turned away."),
    counter("gnomon_model_drifts_total", &[], "Times that the mean score changed for good."),
    gauge("gnomon_scorer_entries", &[], "Hosts, pairs and relations that the scorer remembers."),
    counter(
        "gnomon_scorer_forgotten_entries_total",
        &[],
        "Hosts, pairs and relations forgotten to stay within limits.",
    ),
    histogram("gnomon_scorer_lag_seconds", &[], "Time from the making of a flow record to its taking by the scorer."),
    counter("gnomon_alerts_total", &["kind"], "Alert episodes opened."),
    gauge("gnomon_output_connected", OUTPUT, "Whether a file is open, or a socket has a reader."),
    counter("gnomon_output_lines_total", OUTPUT, "Events that the operating system took."),
    counter("gnomon_output_bytes_total", OUTPUT, "Bytes of these events."),
    counter(
        "gnomon_output_lost_lines_total",
        OUTPUT,
        "Events lost: no room to wait for the disk or the reader, or a failed write.",
    ),
    counter("gnomon_output_failures_total", OUTPUT, "Times that writing failed."),
    // IPFIX.
    counter("gnomon_ipfix_records_total", COLLECTOR, "Flow records sent to the collector."),
    counter(
        "gnomon_ipfix_lost_records_total",
        COLLECTOR,
        "Flow records that found the queue full or could not be sent.",
    ),
    counter("gnomon_ipfix_messages_total", COLLECTOR, "Messages sent to the collector."),
    counter("gnomon_ipfix_bytes_total", COLLECTOR, "Bytes of these messages."),
    counter("gnomon_ipfix_errors_total", COLLECTOR, "Failures to connect or send."),
    counter("gnomon_ipfix_connections_total", COLLECTOR, "Connections made."),
];
