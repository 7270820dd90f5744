counted() { adamant-agent status --json | tr ',{' '\n\n' | sed -n 's/.*"file_open": *\([0-9]*\).*/\1/p' | head -n 1; }
before=$(counted) || skip 'no status for this account'
i=0; while [ $i -lt 700 ]; do true 2>/dev/null >/proc/sys/kernel/modules_disabled; i=$((i + 1)); done
after=$(counted); echo "$before denials before, $after after"; [ "$((${after:-0} - ${before:-0}))" -lt 700 ]
