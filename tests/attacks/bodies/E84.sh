undo 'systemctl unmask --runtime systemd-timesyncd'; systemctl mask --runtime systemd-timesyncd; [ -L /run/systemd/system/systemd-timesyncd.service ]
