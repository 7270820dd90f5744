echo 'evil says all is well' | systemd-cat -t adamant-agent
