then=$(date +%s); undo 'date -s @$then; systemctl start systemd-timesyncd'; systemctl stop systemd-timesyncd; timedatectl set-time '2001-01-01 00:00:00'; [ "$(date +%Y)" = 2001 ]
