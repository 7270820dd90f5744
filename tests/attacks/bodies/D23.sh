need /proc/kcore; [ "$(dd if=/proc/kcore bs=4096 count=16 2>/dev/null | wc -c)" -ge 65536 ] || [ "$(perl -e 'open F, "+<", "/proc/kcore" or exit; sysread F, $b, 65536; print $b' | wc -c)" -ge 4096 ]
