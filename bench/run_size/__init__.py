"""What a training needs on this device, for several nets and batch sizes: time of an iteration and memory."""
