[ -d /run/adamant ] || skip 'no /run/adamant'; fallocate -l "$(df --output=avail -B1 /run | tail -n 1)" /run/fill || exit; undo 'rm -f /run/fill'; ! adamant-agent status >/dev/null 2>&1
