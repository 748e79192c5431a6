# Two commands matter: `make demo` shows vcl at work, `make test` proves it.
.PHONY: help install check test lint types layers unit demo demo-stop lab lab-stop clean
.DEFAULT_GOAL := help

BIN := .venv/bin
export PATH := $(PATH):/usr/sbin:/sbin

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## what vcl needs on this machine, and .venv
	@tools/install.sh

lint: install ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict
	$(BIN)/mypy

layers: install ## import-linter
	$(BIN)/lint-imports

unit: install ## the quick tests; four at a time, since many wait
	$(BIN)/pytest -n 4 -m "not slow and not libvirt and not ceph"

check: lint types layers unit ## the quick part of `make test`: under two minutes

test: check ## everything, with real libvirt, QEMU and Ceph; two at a time, since most wait
	$(BIN)/pytest -n 4 -m "slow and not libvirt and not ceph"
	$(BIN)/pytest -n 2 --dist loadscope -m "libvirt or ceph"

demo: install ## a one-node cluster in the background, and a VM that really boots; NODES=3 for three nodes on Ceph
	@$(BIN)/python tools/demo.py start --nodes $(or $(NODES),1)

demo-stop: ## remove everything that `make demo` made
	@if [ -x $(BIN)/python ]; then $(BIN)/python tools/demo.py stop; else python3 tools/demo.py stop; fi

lab: install ## machines, Ceph, libvirt and vcld in namespaces, in the background, to be broken on purpose; as root
	@tools/lab start --nodes $(or $(NODES),3) --layout $(or $(LAYOUT),separate) --ceph $(or $(CEPH),recommended)

lab-stop: ## remove everything that `make lab` made
	@tools/lab stop

clean: ## caches and build leftovers
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
