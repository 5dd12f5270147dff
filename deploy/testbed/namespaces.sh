#!/usr/bin/env bash
# A testbed of five hosts on one: a cloud server, the link emulator and three edge agents, each in a
# network namespace of its own, so that no packet between an edge and the cloud avoids the link.
#
#   edge-1 10.77.1.2 ─┐
#   edge-2 10.77.2.2 ─┼─ link (10.77.N.1, 10.77.0.1) ── cloud 10.77.0.2
#   edge-3 10.77.3.2 ─┘
#
#   namespaces.sh up [LINK OPTIONS…]   make the namespaces and start the processes
#   namespaces.sh network              make the namespaces alone
#   namespaces.sh ask N QUESTION FILE  ask edge N
#   namespaces.sh status               what runs
#   namespaces.sh down                 stop the processes, remove the namespaces
#
# Needs root (namespaces are the kernel's) and iproute2. Touches nothing outside its namespaces, whose
# names begin with SCOUT_TESTBED_PREFIX (default: scout). Logs and process ids are in
# SCOUT_TESTBED_STATE (default: /run/scout-testbed). Programs come from SCOUT_BIN (default: .venv/bin).
set -euo pipefail

prefix=${SCOUT_TESTBED_PREFIX:-scout}
state=${SCOUT_TESTBED_STATE:-/run/scout-testbed}
bin=${SCOUT_BIN:-$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin}
edges=(1 2 3)
cloud_port=7071
link_port=7080
edge_port=7070
start_timeout_s=300
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "namespaces: $*" >&2; exit 2; }
in_namespace() { ip netns exec "$prefix-$1" "${@:2}"; }

# join HOST ADDRESS GATEWAY_ADDRESS: a cable from a host's namespace to the link's.
join() {
  ip netns add "$prefix-$1"
  ip link add "to-$1" netns "$prefix-link" type veth peer name up0 netns "$prefix-$1"
  ip -n "$prefix-link" address add "$3/24" dev "to-$1"
  ip -n "$prefix-link" link set "to-$1" up
  ip -n "$prefix-$1" address add "$2/24" dev up0
  ip -n "$prefix-$1" link set up0 up
  ip -n "$prefix-$1" link set lo up
}

network() {
  ip netns add "$prefix-link"
  ip -n "$prefix-link" link set lo up
  join cloud 10.77.0.2 10.77.0.1
  for n in "${edges[@]}"; do join "edge-$n" "10.77.$n.2" "10.77.$n.1"; done
}

# start NAMESPACE NAME COMMAND…
start() {
  local namespace=$1 name=$2
  shift 2
  ip netns exec "$prefix-$namespace" "$@" >"$state/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
}

# wait_for NAMESPACE NAME HOST PORT
wait_for() {
  local deadline=$((SECONDS + start_timeout_s))
  until in_namespace "$1" bash -c "exec 3<>/dev/tcp/$3/$4" 2>/dev/null; do
    kill -0 "$(<"$state/$2.pid")" 2>/dev/null || fail "$2 ended early; see $state/$2.log"
    ((SECONDS < deadline)) || fail "$2 did not listen within $start_timeout_s s; see $state/$2.log"
    sleep 0.2
  done
}

up() {
  [[ -x $bin/scout ]] || fail "$bin/scout does not exist; run 'make setup' or set SCOUT_BIN"
  mkdir -p "$state"
  network
  start cloud cloud "$bin/scout-cloud" --listen "10.77.0.2:$cloud_port" --server-id cloud
  wait_for cloud cloud 10.77.0.2 "$cloud_port"
  start link link "$bin/scout" link --listen "0.0.0.0:$link_port" \
    --upstream "10.77.0.2:$cloud_port" "$@"
  wait_for link link 127.0.0.1 "$link_port"
  for n in "${edges[@]}"; do
    start "edge-$n" "edge-$n" "$bin/scout-edge" --listen "127.0.0.1:$edge_port" \
      --agent-id "edge-$n" --cloud "10.77.$n.1:$link_port"
  done
  for n in "${edges[@]}"; do wait_for "edge-$n" "edge-$n" 127.0.0.1 "$edge_port"; done
  status
}

status() {
  local file name
  for file in "$state"/*.pid; do
    [[ -e $file ]] || { echo "nothing runs"; return; }
    name=$(basename "$file" .pid)
    if kill -0 "$(<"$file")" 2>/dev/null; then echo "$name runs"; else echo "$name has ended"; fi
  done
}

ask() {
  (($# == 3)) || fail "ask takes N QUESTION FILE"
  in_namespace "edge-$1" "$bin/scout" ask --edge "127.0.0.1:$edge_port" --context "$3" "$2"
}

down() {
  local file pid host
  for file in "$state"/*.pid; do
    [[ -e $file ]] || continue
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || true
    for _ in {1..100}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$file"
  done
  for host in cloud "${edges[@]/#/edge-}" link; do
    ip netns delete "$prefix-$host" 2>/dev/null || true
  done
}

command -v ip >/dev/null || fail "iproute2 is not installed"
case ${1:-} in
  up | network | ask | status | down) ((EUID == 0)) || fail "needs root: sudo $0 $*" ;;
  *) fail "say up, network, ask, status or down (the first lines of $0 explain each)" ;;
esac
"$@"
