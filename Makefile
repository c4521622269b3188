# make demo | make test | make lint: each builds the environment it needs.
ROS_LINE ?= jazzy
PYTHON ?= python3
VENV := $(if $(filter jazzy,$(ROS_LINE)),.venv,.venv-$(ROS_LINE))
BIN := $(VENV)/bin

ROS_jazzy := "ros-jazzy-rclpy[fastrtps]" ros-jazzy-sensor-msgs ros-jazzy-diagnostic-msgs \
  ros-jazzy-lifecycle-msgs ros-jazzy-nav-msgs ros-jazzy-std-msgs ros-jazzy-std-srvs \
  ros-jazzy-geometry-msgs ros-jazzy-rosgraph-msgs
ROS_kilted := ros-rclpy ros-rmw-fastrtps-cpp ros-fastdds ros-sensor-msgs ros-diagnostic-msgs \
  ros-lifecycle-msgs ros-nav-msgs ros-std-msgs ros-std-srvs ros-geometry-msgs ros-rosgraph-msgs

.PHONY: demo bench soak street-check motion-check demo-checkpoint pretrain-demo test attack audit test-ros test-colcon lint format parameters clean

$(VENV)/ready: constraints/$(ROS_LINE).txt setup.py Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed; say which with PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints/$(ROS_LINE).txt $(ROS_$(ROS_LINE)) -e '.[training,test]'
	@touch $@

ifdef BAG
demo: $(VENV)/ready
else
BAG := out/demo/street
POINTS := /lidar/points
IMAGE := /camera_left/image_raw/compressed /camera_right/image_raw/compressed
demo: $(VENV)/ready
	@rm -rf $(BAG)
	@$(BIN)/python -m offline_training.make_street_bag $(BAG) --seed 7 --seconds 20
endif
	@$(BIN)/python -m cross4d_jepa_ros.demo --out out/demo --bag '$(BAG)' \
	  $(if $(POINTS),--points '$(POINTS)') $(if $(IMAGE),--images $(IMAGE)) \
	  $(if $(CAMERA_INFO),--camera-infos $(CAMERA_INFO)) $(if $(EXTRINSICS),--extrinsics '$(EXTRINSICS)') \
	  $(if $(ODOMETRY),--odometry '$(ODOMETRY)') $(if $(MODEL),--model '$(MODEL)') $(if $(RATE),--rate $(RATE))

# What a sweep costs: of made-up ones, or of BAG=... POINTS=... [IMAGE=...]. FULL=1 for all sizes.
# The BAG that this file names is the demo's.
bench: $(VENV)/ready
	@$(BIN)/python -m cross4d_jepa_ros.bench --out out/bench $(if $(FULL),--full) \
	  $(if $(filter-out file,$(origin BAG)),--bag '$(BAG)' $(if $(POINTS),--points '$(POINTS)') \
	  $(if $(IMAGE),--images $(IMAGE)) $(if $(CAMERA_INFO),--camera-infos $(CAMERA_INFO)) \
	  $(if $(EXTRINSICS),--extrinsics '$(EXTRINSICS)') $(if $(ODOMETRY),--odometry '$(ODOMETRY)')) \
	  $(if $(MODEL),--model '$(MODEL)') $(if $(DEVICE),--device $(DEVICE)) \
	  $(if $(PRECISION),--precision $(PRECISION))

# A bad day, replayed: faults of every kind against the node, with a verdict. SEED orders them.
MINUTES ?= 2
soak: $(VENV)/ready
	@$(BIN)/python -m cross4d_jepa_ros.soak --minutes $(MINUTES) --out out/soak \
	  $(if $(SEED),--seed $(SEED))

# Whether the street is hard enough, and natural enough for a teacher that was trained on photographs.
street-check: $(VENV)/ready
	$(BIN)/python -m offline_training.street_check --out out/street_check.json

# Whether a memory of four sweeps sees which cars move, and costs nothing elsewhere.
motion-check: $(VENV)/ready
	$(BIN)/python -m offline_training.motion_check --out out/motion_check.json

# Bags -> index -> targets -> four pretrained encoders -> node: of short drives through towns, or of
# BAG=... POINTS=... IMAGE=... as for the demo.
pretrain-demo: $(VENV)/ready
	@$(BIN)/python -m offline_training.pretrain_demo --out out/pretrain_demo \
	  $(if $(filter-out file,$(origin BAG)),--bag '$(BAG)' $(if $(POINTS),--points '$(POINTS)') \
	  $(if $(IMAGE),--images $(IMAGE)) $(if $(EXTRINSICS),--extrinsics '$(EXTRINSICS)') \
	  $(if $(ODOMETRY),--odometry '$(ODOMETRY)'))

# Remakes the checkpoint that ships: pretrained without labels on drives through 48 towns, then taught
# classes on 72 others, first on single sweeps, then on windows of them. Goes on where it stopped.
DRIVES := out/training/drives
PRETRAINED := out/training/demo_pretraining
demo-checkpoint: $(VENV)/ready
	for town in $$(seq 1000 1047); do test -d $(DRIVES)/$$town || $(BIN)/python -m \
	  offline_training.make_street_bag $(DRIVES)/$$town --seed $$town --seconds 2 || exit 1; done
	$(BIN)/python -m offline_training.index_bags $(DRIVES)/* --points /lidar/points --images \
	  /camera_left/image_raw/compressed /camera_right/image_raw/compressed --out out/training/drives.parquet
	$(BIN)/python -m offline_training.cache_targets out/training/drives.parquet --input-height 384 \
	  --out out/training/targets
	$(BIN)/python -m offline_training.pretrain config/pretraining/demo.yaml --index out/training/drives.parquet \
	  --targets out/training/targets --out $(PRETRAINED) --resume
	$(BIN)/python -m offline_training.train_segmentation config/training/demo_sweeps.yaml out/training/demo_sweeps.safetensors
	$(BIN)/python -m offline_training.train_segmentation config/training/demo.yaml config/demo.safetensors

# SHUFFLE=7: modules, and the tests of each, in an order that the number decides.
# Two at once, with one thread each; then those that want all cores for themselves.
PYTEST = $(BIN)/python -m pytest -q $(if $(SHUFFLE),--random-order-bucket=module --random-order-seed=$(SHUFFLE))
test: $(VENV)/ready
	@failed=0; \
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile -m 'not real_time' || failed=1; \
	$(PYTEST) -m real_time || failed=1; exit $$failed

# What make test tries of malformed messages and damaged files, TRIES times as much.
TRIES ?= 10
attack: $(VENV)/ready
	CROSS4D_TRIES=$(TRIES) $(BIN)/python -m pytest -q tests/malformed tests/damaged \
	  tests/test_conservation.py

# Whether anything that is pinned has a vulnerability that is known. Needs the network, and an
# environment of its own: what audits is none of what runs.
audit:
	@$(PYTHON) -m venv out/audit
	@out/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@out/audit/bin/python -m tests.audit constraints/$(ROS_LINE).txt

# What needs pieces of a full ROS: in a sourced ROS 2 it runs there, else on the wheels with whatever
# PYTHONPATH adds. Says at the end what it could not run.
ROS_PYTHON := $(if $(ROS_DISTRO),$(PYTHON),$(BIN)/python)
test-ros: $(if $(ROS_DISTRO),,$(VENV)/ready)
	$(ROS_PYTHON) -m pytest -q -rs tests/full_ros tests/test_perception_node.py tests/test_named_causes.py

# The lines of docs/install.md that need no apt, with the wheels in the place of an apt ROS; then the
# node that they installed, started without their environment, and the tests as colcon runs them.
test-colcon: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/$(ROS_LINE).txt \
	  colcon-common-extensions
	rm -rf out/colcon && mkdir -p out/colcon/src && git clone --quiet . out/colcon/src/cross4d_jepa_ros
	cd out/colcon && $(abspath $(BIN))/python -m colcon list | grep 'ros.ament_python'
	{ sed -n '/^python3 -m venv/,/^source install/p' docs/install.md; \
	  echo 'cd src/cross4d_jepa_ros'; \
	  echo 'python3 -m tests.installed_node ../../install/cross4d_jepa_ros'; \
	  echo 'cd ../..'; \
	  echo 'python3 -m colcon test --event-handlers console_direct+'; \
	  echo 'python3 -m colcon test-result --verbose'; } > out/colcon/recipe.sh
	@# What setup.bash of an apt ROS sets.
	export PATH="$(abspath $(BIN)):$$PATH" \
	  PYTHONPATH="$$(echo $(abspath $(VENV))/lib/python3.*/site-packages)" \
	  LD_LIBRARY_PATH="$$(echo $(abspath $(VENV))/lib $(abspath $(VENV))/lib/python3.*/site-packages/*.libs | tr ' ' :)" && \
	  cd out/colcon && bash -ex recipe.sh

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/ready
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

parameters: $(VENV)/ready
	$(BIN)/python -c "from cross4d_jepa_ros.ros.parameters import write_table; write_table('README.md')"

clean:
	rm -rf out build install log .pytest_cache .mypy_cache .ruff_cache
