seed=/var/lib/systemd/random-seed; need $seed /usr/lib/systemd/systemd-random-seed
mv $seed seed; undo "rm -f $seed; mv seed $seed"; mkfifo $seed
timeout 9 /usr/lib/systemd/systemd-random-seed save; [ $? = 124 ]
