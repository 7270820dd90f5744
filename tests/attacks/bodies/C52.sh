f=$(ls -d /sys/class/scsi_disk/*/cache_type | head -n 1); need "${f:-cache_type}"; type=$(cat "$f"); echo "$type" >"$f"
