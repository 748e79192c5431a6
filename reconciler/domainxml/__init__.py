"""Between a VirtualMachine's spec and libvirt's domain XML. Pure."""
