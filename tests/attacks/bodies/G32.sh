everyone; key=/var/lib/ssh/ssh_host_ed25519_key; need $key
mv $key key; undo "rm -f $key; mv key $key"; mkfifo $key
timeout 20 systemctl restart sshd-keygen.service; [ ! -f $key ]
