undo 'mv /var/attack /var/lib'; mv /var/lib /var/attack
