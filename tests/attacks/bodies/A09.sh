mv /usr/bin /usr/nib
