"""What the flow tests stand on: a scripted registry, a raw HTTP client, images, and larder itself as a process."""
