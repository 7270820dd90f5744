absent dummy; undo 'rmmod dummy'; systemctl start modprobe@dummy.service && became dummy
