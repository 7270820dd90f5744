echo x >/var/log/evil && rm /var/log/evil
