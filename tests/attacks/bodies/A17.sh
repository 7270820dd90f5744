ln /usr/bin/dash /etc/x
