#!/usr/bin/env bash
# How assets/checkpoints/eb-vla-tiny was made: ten rounds of demonstrations and training, each from
# the weights of the one before; some fourteen hours on two CPU cores. With a GPU a round is minutes:
# `--steps 8000` in place of `--minutes`. From the second round on, more demonstrations were made of
# the tasks that did worst; the first round began from an earlier training of some two hours, which
# is not here.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
suites=(libero_spatial libero_goal libero_object)

# Exit code 1: some demonstrations did not succeed, as a policy's begin where that is hard.
collect() { "$python" -m studio.collect --workers auto "$@" || (($? == 1)); }
follow() { collect --noise-fraction 0.33 --dagger "$@"; }  # where a policy gets to by itself
train() { "$python" -m models.train --preset eb-vla-tiny --batch-size 64 --ema 0.998 "$@"; }

# Rounds 1 to 4: 820 episodes of the expert, then 440 that begin where the model got to.
for s in "${suites[@]}"; do collect --suite "$s" --per-task 23 --out "data/one/$s"; done
collect --suite libero_object --per-task 14 --other-scenes --out data/one/other_scenes
train --data data/one --out runs/one --minutes 118 --lr 8e-4 --warmup-steps 100 --warm-fraction 0.6

for s in "${suites[@]}"; do follow runs/one/last --suite "$s" --per-task 9 --out "data/one/${s}_2"; done
train --data data/one --out runs/two --init runs/one/last --minutes 72 --lr 7e-4 \
    --warmup-steps 60 --warm-fraction 0.5

for s in "${suites[@]}"; do follow runs/two/last --suite "$s" --per-task 8 --out "data/one/${s}_3"; done
train --data data/one --out runs/three --init runs/two/last --minutes 72 --lr 6e-4 \
    --warmup-steps 60 --warm-fraction 0.5

follow runs/three/last --suite libero_object --tasks 1,9 --per-task 9 --out data/one/libero_object_4
follow runs/three/last --suite libero_goal --tasks 3,6 --per-task 8 --out data/one/libero_goal_4
follow runs/three/last --suite libero_spatial --tasks 8,9 --per-task 5 --out data/one/libero_spatial_4
# The files of the six tasks that failed most lay in data/one twice.
train --data data/one --out runs/four --init runs/three/last --minutes 76 --lr 6e-4 \
    --warmup-steps 40 --warm-fraction 0.5 --contrast 0.05

# Round 5: 430 new episodes, 130 of them after a grasp that missed.
collect --suite libero_spatial --per-task 9 --out data/two/spatial
collect --suite libero_goal --per-task 9 --out data/two/goal
collect --suite libero_object --per-task 5 --other-scenes --out data/two/other_scenes
collect --suite libero_object --per-task 3 --out data/two/object
collect --suite libero_object --per-task 4 --seed 3 --inits 20-39 --out data/two/object_2
missed=(--misses --noise-fraction 0.33 --seed 7)
collect --suite libero_spatial --per-task 7 "${missed[@]}" --out data/two/spatial_missed
collect --suite libero_goal --tasks 1,2,4,5,6,8,9 --per-task 6 "${missed[@]}" --out data/two/goal_missed
collect --suite libero_object --per-task 3 "${missed[@]}" --out data/two/object_missed
follow runs/four/last --suite libero_goal --tasks 0,3,5 --per-task 5 --seed 11 --out data/two/goal_followed
train --data data/two --out runs/five --init runs/four/last --minutes 42 --lr 5e-4 \
    --warmup-steps 40 --warm-fraction 0.4 --contrast 0.05

# Round 6: 420 more, 145 of them where the model got to.
collect --suite libero_object --tasks 0,1,3,5,6 --per-task 8 --seed 21 --inits 8-39 --out data/two/object_3
new=(--seed 31 --inits 10-39)
follow runs/five/last --suite libero_spatial --per-task 6 "${new[@]}" --out data/two/spatial_followed
follow runs/five/last --suite libero_object --per-task 4 "${new[@]}" --out data/two/object_followed
follow runs/five/last --suite libero_goal --per-task 5 "${new[@]}" --out data/two/goal_followed_2
collect --suite libero_goal --per-task 9 --seed 32 --inits 10-39 --out data/two/goal_2
collect --suite libero_spatial --per-task 9 --seed 32 --inits 10-39 --out data/two/spatial_2
collect --suite libero_object --per-task 6 --seed 33 --inits 12-39 --out data/two/object_4
train --data data/two --out runs/six --init runs/five/last --minutes 55 --lr 5e-4 \
    --warmup-steps 40 --warm-fraction 0.4 --contrast 0.05 --compile

# Round 7: libero_10 joins in, without the task that the expert can't do; 298 new episodes.
collect --suite libero_10 --tasks 0-8 --per-task 18 --seed 41 --out data/two/libero_10
collect --suite libero_object --per-task 6 --seed 43 --other-scenes --out data/two/other_scenes_2
follow runs/six/last --suite libero_spatial --per-task 5 --seed 45 --out data/two/spatial_followed_2
follow runs/six/last --suite libero_goal --per-task 4 --seed 45 --out data/two/goal_followed_3
train --data data/two --out runs/seven --init runs/six/last --minutes 65 --lr 6e-4 \
    --warmup-steps 40 --warm-fraction 0.5 --contrast 0.05 --compile

# Rounds 8 and 9: 279 more, 173 of libero_10, which is half of what round 8 sees; round 9 is gentle.
collect --suite libero_10 --tasks 0-8 --per-task 14 --seed 51 --inits 18-39 --out data/two/libero_10_2
new=(--seed 55 --inits 0-39)
follow runs/seven/last --suite libero_10 --tasks 0-8 --per-task 6 "${new[@]}" --out data/two/libero_10_followed
follow runs/seven/last --suite libero_goal --per-task 3 "${new[@]}" --out data/two/goal_followed_4
collect --suite libero_object --per-task 8 --seed 57 --other-scenes --out data/two/other_scenes_3
mkdir -p data/aside
mv data/two/{object,object_2,object_3,spatial} data/aside
train --data data/two --out runs/eight --init runs/seven/last --minutes 70 --lr 6e-4 \
    --warmup-steps 40 --warm-fraction 0.5 --contrast 0.05 --compile
mv data/aside/* data/two
mv data/two/libero_10 data/aside
train --data data/two --out runs/nine --init runs/eight/last --minutes 28 --lr 3e-4 \
    --warmup-steps 40 --warm-fraction 0.3 --contrast 0.05 --compile
mv data/aside/* data/two

# Round 10: 140 more, of the tasks that failed most; everything together.
new=(--seed 61 --inits 0-39)
follow runs/nine/last --suite libero_object --tasks 0,1,3,5,9 --per-task 6 "${new[@]}" --out data/two/object_followed_2
follow runs/nine/last --suite libero_spatial --tasks 4,5,7,9 --per-task 7 "${new[@]}" --out data/two/spatial_followed_3
follow runs/nine/last --suite libero_goal --tasks 3 --per-task 10 "${new[@]}" --out data/two/goal_followed_5
follow runs/nine/last --suite libero_goal --tasks 4,5,6,7,8 --per-task 4 "${new[@]}" --out data/two/goal_followed_5
follow runs/nine/last --suite libero_10 --tasks 0-8 --per-task 5 "${new[@]}" --out data/two/libero_10_followed_2
collect --suite libero_goal --tasks 3 --per-task 12 --seed 63 --out data/two/goal_3
collect --suite libero_goal --tasks 3 --per-task 8 --misses --noise-fraction 0.33 --seed 65 --out data/two/goal_missed_2
train --data data/two --out runs/ten --init runs/nine/last --minutes 62 --lr 4e-4 \
    --warmup-steps 40 --warm-fraction 0.4 --contrast 0.05 --compile

"$python" -m studio.evaluate --checkpoint runs/ten/last --suite "$(IFS=,; echo "${suites[*]}")" \
    --inits 40-44 --calibrate --out runs/nominal
