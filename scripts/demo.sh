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
