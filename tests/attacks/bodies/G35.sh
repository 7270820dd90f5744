undo '[ -d /var/attack ] && mv /var/attack /var/tmp'; cd /; mv /var/tmp /var/attack
