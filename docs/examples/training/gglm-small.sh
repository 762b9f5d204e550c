#!/bin/sh
# From texts and questions to weights, as gglm-small was made, in brief (docs/log.md has the whole way):
#
#     sh docs/examples/training/gglm-small.sh DATA OUT
#
# DATA: text/*.jsonl[.zst] with {"text"}; qa/ with cmrc2018_train, drcd_train_subset, drcd_dev, authored_train, and to choose by,
# cmrc2018_trial and authored_dev; rewrite/authored_rewrite_train; translation/translation_*. What is done already is not done again: run it anew after a
# break. The minutes below are about eighteen hours of one core together; gglm-small 0.1 had less than two.
set -eu
data=$1 out=$2 here=$(dirname "$0") root=$(dirname "$0")/../../..
: "${BASE_MINUTES:=180}" "${READER_MINUTES:=420}" "${BRANCH_MINUTES:=90}" "${WRITER_MINUTES:=12}" "${TRANSLATOR_MINUTES:=260}"
mkdir -p "$out"
qa() { for name in "$@"; do ls "$data/qa/$name".jsonl "$data/qa/$name".jsonl.zst 2>/dev/null | head -1; done; }
real="$(qa cmrc2018_train cmrc2018_train cmrc2018_train drcd_train_subset drcd_dev authored_train authored_train)" # thrice: weight

[ -f "$out/tokenizer.model" ] || chatgglm train tokenizer "$data/text" -o "$out/tokenizer.model"
[ -f "$out/shards/offsets.npy" ] || chatgglm train shards "$data/text" --tokenizer "$out/tokenizer.model" -o "$out/shards"
[ -f "$out/vectors.npz" ] || chatgglm train vectors "$out/shards" --tokenizer "$out/tokenizer.model" -o "$out/vectors.npz"
[ -f "$out/own.jsonl" ] || chatgglm train questions "$root/data/questions/train" -o "$out/own.jsonl"

# The base: texts alone.
chatgglm train pretrain "$out/shards" --tokenizer "$out/tokenizer.model" --vectors "$out/vectors.npz" \
  -o "$out/base" --minutes "$BASE_MINUTES" --settings "$here/base.toml" --compile

# The reader, then two branches of it with the rate falling to nothing, and their mean.
# shellcheck disable=SC2086
finetune() {
  chatgglm train finetune $real "$out/own.jsonl" --tokenizer "$out/tokenizer.model" --shards "$out/shards" --mixed 0.05 \
    --settings "$here/reader.toml" --compile "$@"
}
finetune --init "$out/base/checkpoint.pt" -o "$out/reader" --minutes "$READER_MINUTES" --rate 1.5e-3 --decay 0.6 --seed 1
for seed in 2 3; do
  finetune --init "$out/reader/checkpoint.pt" -o "$out/branch$seed" --minutes "$BRANCH_MINUTES" --rate 4e-4 --decay 1 --seed $seed
done
chatgglm train average "$out/reader" "$out/branch2" "$out/branch3" -o "$out/mean"

# Small talk, the encoder left as it is; then a weights folder with thresholds of its own.
chatgglm train write --source dialogue:0.85="$root/data/smalltalk/train.jsonl" \
  --source rewriting:0.15="$(ls "$data/rewrite/authored_rewrite_train".jsonl*)" --tokenizer "$out/tokenizer.model" \
  --init "$out/mean/checkpoint.pt" -o "$out/writer" --minutes "$WRITER_MINUTES"
chatgglm train export "$out/writer" --tokenizer "$out/tokenizer.model" -o "$out/weights" --name mine-0.1 --task 对话

# Translation, if there are pairs ({"zh", "en"}): weights of its own, which keep the reader's table of character pairs.
pairs=$(ls "$data"/translation/translation_*.jsonl* 2>/dev/null | grep -v heldout | tr '\n' ',' || true)
if [ -n "$pairs" ]; then
  chatgglm train write --source "translation=${pairs%,}" --tokenizer "$out/tokenizer.model" --init "$out/weights" \
    -o "$out/translator" --unfreeze --minutes "$TRANSLATOR_MINUTES" --settings "$here/translator.toml" --compile
  chatgglm train export "$out/translator" --tokenizer "$out/tokenizer.model" -o "$out/weights-zh-en" --name mine-zh-en-0.1 \
    --task 翻译 --int8 --borrow "$out/weights"
fi

# shellcheck disable=SC2046
chatgglm train calibrate $(qa cmrc2018_trial authored_dev) --weights "$out/weights" --limit 300
echo "$out/weights: chatgglm eval reading $data/qa/cmrc2018_dev.jsonl.zst --weights $out/weights"
