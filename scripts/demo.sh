#!/bin/sh
# A labelled capture of 15 simulated minutes with every attack gnomon can stage, sent through the appliance.
set -eu
cd "$(dirname "$0")/.."
gnomon=${GNOMON:-target/release/gnomon}
out=${DEMO_OUT:-demo-out}

echo "== 1. gnomon scenario: traffic of a small data centre with attacks in it, and the truth about them"
"$gnomon" scenario -o "$out" --seed 7 --minutes 15 --rate 4
echo
echo "== 2. gnomon replay: the same workers as live, over DPDK's pcap device"
"$gnomon" replay "$out/scenario.pcap" -c "$out/scenario.toml" -o "$out/result"

echo
echo "== 3. What was staged (truth.json), and what alerts.jsonl says of it"
sed -n 's/.*"kind": "\(.*\)".*/\1/p' "$out/truth.json" | while read -r kind; do
    if grep -q "\"kind\":\"$kind\"" "$out/result/alerts.jsonl"; then
        verdict=found
    else
        verdict="not found by name"
    fi
    printf '  %-17s %s\n' "$kind" "$verdict"
done
echo "  $(grep -c '"kind":"outlier"' "$out/result/alerts.jsonl" || true) more alerts say only that a flow is unusual (outlier)"

echo
echo "Next: $gnomon explain 'tcp 10.1.0.1:40000 > 10.2.0.1:8080' -c $out/scenario.toml   asks what the rules do to a packet, and why"
echo "      $gnomon replay YOUR.pcap -o result   sends a capture of yours through; config/gateway.toml is a live set-up to start from"
