for d in /run /tmp /dev/shm /dev; do undo "rm -f $d/e28b"; printf 'echo evil program ran\n' >$d/e28b; ran "$(sh $d/e28b)" && exit 0; done; false
