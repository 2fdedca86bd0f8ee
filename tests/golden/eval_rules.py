"""Makes eval_rules.json and eval_rows/: replies, prompts, subtitles and judges' words, as the reference evaluation reads them.

In:  a checkout of lmms-eval (github.com/EvolvingLMMs-Lab/lmms-eval, commit 352b62df, which Video-UTR pins) and numpy, pyyaml, pyarrow.
Out: for each rule its cases with what the original function gave; prompts of made-up questions; sets as CPython lists them; a table written by
     pyarrow in two pieces, as published data sets are.
Run: python tests/golden/eval_rules.py CHECKOUT   (the original runs unmodified; what it needs only for videos and the network is not loaded)
     For other cases than those kept here: python tests/golden/eval_rules.py CHECKOUT --seed 7 --output /tmp/rules.json
     then UTR_EVAL_RULES=/tmp/rules.json cargo test --release --workspace --lib eval::
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import types
from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml

HERE = Path(__file__).resolve().parent
CLIP = {"fps": 30.0, "total": 900}


class Video:
    """The two numbers that the original asks OpenCV for."""

    def __init__(self, path):
        pass

    def get(self, what):
        return CLIP[what]


def originals(checkout):
    """The modules of the four benchmarks."""
    for name in ("decord", "openai", "loguru", "cv2", "requests", "PIL", "tqdm", "lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils",
                 "lmms_eval.tasks._task_utils.file_utils"):
        sys.modules[name] = types.ModuleType(name)
    quiet = types.SimpleNamespace(error=lambda *a: None, info=lambda *a: None)
    sys.modules["loguru"].logger = quiet
    sys.modules["decord"].VideoReader = sys.modules["decord"].cpu = None
    sys.modules["openai"].OpenAI = sys.modules["tqdm"].tqdm = None
    sys.modules["cv2"].VideoCapture = Video
    sys.modules["cv2"].CAP_PROP_FPS, sys.modules["cv2"].CAP_PROP_FRAME_COUNT = "fps", "total"
    files = sys.modules["lmms_eval.tasks._task_utils.file_utils"]
    files.generate_submission_file = None
    sys.modules["lmms_eval.tasks._task_utils"].file_utils = files
    modules = []
    for task in ("mvbench", "tempcompass", "videomme", "activitynetqa"):
        path = checkout / "lmms_eval" / "tasks" / task / "utils.py"
        specification = importlib.util.spec_from_file_location(task, path)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        modules.append(module)
    return modules


def replies(rng, pieces, count):
    """Replies put together from pieces, stripped as the harness strips them."""
    return sorted({"".join(rng.choice(pieces) for _ in range(rng.randint(1, 5))).strip() for _ in range(count)})


LETTERS = ["A", "B", "C", "D", "E", "F", "a", "b", "e"]
AROUND = [" ", "\n", "\t", ". ", ".", "(", ")", ") ", ": ", ",", ", ", "'", '"', "_", "-", "[", "]", "é", "3", "3,000", "1.5", "...", "?", " ! ", "/"]
WORDS = ["the", "Answer", "answer", "is", "The best answer is", "The answer is", "The answer", "The correct answer is", "option", "Best option:",
         "a man", "Dog", "Correct", "x", "Ünder", "The best option is"]


def mvbench(module, rng):
    cases = []
    for pred in replies(rng, LETTERS + AROUND + WORDS, 500) + ["B. one\ntwo", "B.\ntwo", "c.", "A." * 40 + " B", ". " * 35 + "D.", "É", "B)", "(F)", "F"]:
        truth = rng.choice("ABCDEF")
        cases.append({"gt": truth, "pred": pred, "score": module.mcq_acc(truth, pred)})
        found = [g for g in "ABCDEF" if module.mcq_acc(g, pred)]
        cases += [{"gt": g, "pred": pred, "score": 1} for g in found]
    prompts = []
    for question, candidates in [("What moves?", ["a ball", "a box"]), ("How many?\nCount.", ["1", "2", "3", "4", "5"])]:
        doc = {"question": question, "candidates": candidates}
        prompts.append({**doc, "prompt": module.mvbench_doc_to_text(doc, {"post_prompt": post_prompt(module, "mvbench_action_count.yaml")})})
    return {"mvbench": cases, "mvbench_prompts": prompts, "mvbench_folders": module.DATA_LIST}


class Loader(yaml.SafeLoader):
    pass


Loader.add_multi_constructor("!function", lambda *a: None)


def settings(module, name):
    return yaml.load((Path(module.__file__).parent / name).read_text(), Loader)["lmms_eval_specific_kwargs"]["default"]


def post_prompt(module, name):
    return settings(module, name)["post_prompt"]


def videomme(module, rng):
    cases = [{"pred": pred, "ans": module.extract_characters_regex(pred)} for pred in replies(rng, LETTERS + AROUND + WORDS, 400)]
    cases.append({"pred": "no capital of the four in this rather long sentence of more words", "ans": module.extract_characters_regex(
        "no capital of the four in this rather long sentence of more words")})
    return cases


def subtitle_file(rng, entries, length, quirks):
    text = ""
    start = 0.0
    for number in range(entries):
        start += rng.uniform(0, 2 * length / entries)
        # Overlaps as automatic captions have them, and times on whole frames.
        end = start + rng.uniform(0.1, 6 * length / entries)
        if rng.random() < 0.3:
            start, end = round(start), round(end) + 1
        times = []
        for moment in (start, end):
            thousandths = round(moment * 1000)
            times.append(f"{thousandths // 3600000:02}:{thousandths // 60000 % 60:02}:{thousandths // 1000 % 60:02},{thousandths % 1000:03}")
        words = f'<font color="white" size=".72c">line {number}</font>'
        if quirks:
            words = rng.choice([words, f"plain {number}", words + "\nsecond line", f'<font color="white" size=":72c">broken\nin two {number}</font>',
                                words + f'<font color="white" size=".72c">more</font>', '<font color="red" size=".72c">red</font>'])
        text += f"{number + 1}\n{times[0]} --> {times[1]}\n{words}\n\n"
        if quirks and rng.random() < 0.1:
            text += f"{number + 1}\n{times[0]} --> {times[1]}\n" + f'<font color="white" size=".72c">again {number}</font>\n\n'
    return text.replace("\n", "\r\n") if quirks and rng.random() < 0.3 else text


def subtitles(module, rng):
    """Whole prompts too: the original joins what it chose into them."""
    cases, prompts = [], []
    doc = {"videoID": "v1", "question_id": "001-1", "duration": "short", "domain": "Knowledge", "sub_category": "Law", "task_type": "OCR Problems",
           "question": "What is said?", "options": ["A. one", "B. two", "C. three", "D. four"], "answer": "B"}
    plain = module.videomme_doc_to_text(doc, settings(module, "videomme.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        module.base_cache_dir, module.cache_name = folder, ""
        (Path(folder) / "subtitle").mkdir()
        path = Path(folder) / "subtitle" / "v1.srt"
        given = settings(module, "videomme_w_subtitle.yaml")
        prompts.append({"doc": doc, "srt": None, "prompt": plain, "with_subtitles": module.videomme_doc_to_text_subtitle(doc, given)})
        for case in range(30):
            CLIP["fps"] = rng.choice([24.0, 25.0, 30.0, 30000 / 1001, 24000 / 1001])
            CLIP["total"] = rng.choice([40, 900, 9000, 60000])
            text = subtitle_file(rng, rng.choice([3, 30, 120]), CLIP["total"] / CLIP["fps"], case % 2)
            path.write_bytes(text.encode())
            prompt = module.videomme_doc_to_text_subtitle(doc, given)
            chosen = prompt.split("listed below: \n")[1].split("\nSelect the best")[0]
            if len(text) < 60000:
                cases.append({**CLIP, "srt": text, "text": chosen})
        CLIP["fps"], CLIP["total"] = 30.0, 900
        path.write_text(subtitle_file(rng, 12, 30, 0))
        prompts.append({"doc": doc, "srt": path.read_text(), "prompt": plain, "with_subtitles": module.videomme_doc_to_text_subtitle(doc, given)})
    return cases, prompts


def sets(rng):
    cases = []
    for size in (1, 4, 5, 20, 100, 700):
        for top in (size, 50, 1000, 100000):
            put = [rng.randrange(top) for _ in range(size)]
            cases.append({"put": put, "listed": list(set(put))})
    return cases


def tempcompass(module, rng):
    question = "Which one fits?\nCaption A: The man runs.\nCaption B: The man walks."
    numbered = "Which option fits?\nOption 1: It grows.\nOption 2: It shrinks. (slowly) It does."
    pieces = ["Caption A", "Caption B", "A", "B", ".", ": ", "The man runs.", "The man walks.", "(A) ", ") ", "Option 1", "Option 2", "1", "2",
              "It grows.", "It shrinks. (slowly) It does.", "Sentence ", "a", " "]
    matching = []
    for pred in replies(rng, pieces, 400) + ["Caption A: The man runs.", "(B) The man walks.", "Option 2: It shrinks. (slowly) It does."]:
        for q, answer in ((question, "Caption A: The man runs."), (numbered, "Option 2: It shrinks. (slowly) It does.")):
            matching.append({"q": q, "pred": pred, "answer": answer, "score": module.eval_rule(pred, q, answer)})
    module.get_eval_result = lambda prompt: ("asked", "fail")
    choice = []
    for pred in replies(rng, LETTERS + [".", ")", " ", "up", "B. up", "(B)"], 300) + ["B. up", "B. upwards", "B.", "B)", "B ", "Bup", "E"]:
        doc = {"video_id": "1", "dim": "speed", "question": "?", "answer": "B. up"}
        score = module.tempcompass_process_results_multi_choice(doc, [pred])["avg_accuracy"]["rating"]
        choice.append({"pred": pred, "answer": "B. up", "score": score})
    words = replies(rng, ["yes", "Yes", "NO", "no", "Not", ", ", " ", "it", "is", "None", "ye", "s"], 150)
    yes_no = [{"pred": pred, "out": module.extract_pred(pred)} for pred in words]
    prompts = []
    given = settings(module, "_default_template_yaml")
    for task, make in (("multi-choice", module.tempcompass_doc_to_text_multi_choice), ("yes_no", module.tempcompass_doc_to_text_yes_no),
                       ("caption_matching", module.tempcompass_doc_to_text_caption_matching),
                       ("captioning", module.tempcompass_doc_to_text_captioning)):
        prompts.append({"task": task, "question": question, "prompt": make({"question": question}, given)})
    return {"tempcompass_matching": matching, "tempcompass_choice": choice, "tempcompass_yes_no": yes_no, "tempcompass_prompts": prompts}


def attempt(function, *given):
    try:
        return function(*given)
    except Exception:
        return None


def judges(tempcompass_module, activitynet_module, rng):
    pieces = ["Correct", "Incorrect", "correct", " ", ".", "The prediction is ", "not ", "\n"]
    correct = [{"said": said, "rating": attempt(tempcompass_module.llm_output_to_rating, said)} for said in replies(rng, pieces, 150)]
    pieces = ["Reasoning: it moves up", "\n", "Answer: ", "B. up", "A. down", "Answer", "None of the choices are correct", "B", ". ", " ", "```", "\n"]
    captioning = []
    for said in replies(rng, pieces, 400) + ["Reasoning: up\nAnswer: B. up", "Answer: B. up\nThe Answer is A. down", "B. up"]:
        rating = tempcompass_module.parse_llm_output_for_captioning(said, "B. up")["rating"]
        captioning.append({"said": said, "answer": "B. up", "rating": rating})
    said = ["{'pred': 'yes', 'score': 5}", '{"pred": "no", "score": 0}', "{'pred': 'yes', 'score': 4.8}", "{'pred': 'Yes.', 'score': '4'}",
            "Here: {'pred': 'no', 'score': 2,} ok", "{'pred': 'maybe', 'score': 3}", "{'pred': 'yes'}", "{'score': 3}", "{}", "", "yes 5",
            "{'pred': yes, 'score': 5}", "{'pred': 'yes', 'score': None}", "{'pred': 'yes', 'score': True}", "{'pred': 'yes', 'score': -1}",
            "{'pred': 'it\\'s no', 'score': 1}", "{'pred': \"yes\", 'score': 5, 'why': 'same {thing}'}", "{'pred': 'yes', 'score': '4.8'}",
            "{'score': 4, 'pred': 'yes'}\n{'score': 1, 'pred': 'no'}", "{'pred': 'yes' 'score': 5}", "{'pred': 'yes', 'score': 5", "{pred: 'yes', score: 5}",
            "```python\n{'pred': 'no', 'score': 1}\n```", "{'pred': 'yes', 'score': 4/5}", "{'pred': 'yes', 'score': 3, 'score': 4}", "{'pred': 1, 'score': 3}",
            "{\n'pred': 'no',\n'score': 2\n}", "{'pred': 'unknown', 'score': 0}", "{'pred': 'yes', 'score': 1e0}"]
    opened = [{"said": text, "parsed": activitynet_module.parse_score(text)} for text in said]
    scores = []
    for _ in range(6):
        results = [[rng.choice(["yes", "no", "maybe"]), rng.randint(0, 5)] for _ in range(rng.randint(1, 30))]
        rows = [{"Correctness": word, "score": score} for word, score in results]
        scores.append({"results": results, "accuracy": activitynet_module.activitynetqa_aggregate_accuracy(rows, None),
                       "score": activitynet_module.activitynetqa_aggregate_score(rows, None)})
    given = settings(activitynet_module, "_default_template_yaml")
    questions = ["is the person in a red hat happy", "What does Tom's dog do", "2 or more people", "élan is what"]
    prompts = [{"question": text, "prompt": activitynet_module.activitynetqa_doc_to_text({"question": text}, given)} for text in questions]
    return {"judge_correct": correct, "judge_captioning": captioning, "judge_open": opened, "activitynet_scores": scores, "activitynet_prompts": prompts}


def rows(rng):
    """As `datasets` writes them: two pieces, snappy, dictionary pages, a list of strings."""
    folder = HERE / "eval_rows" / "videomme"
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for number in range(40):
        options = [f"{letter}. {rng.choice(['red', 'blue', 'grün', '2', 'he said ' + chr(34) + 'no' + chr(34)])} {number}" for letter in "ABCD"]
        table.append({"question_id": f"{number // 3:03}-{number % 3 + 1}", "videoID": f"v{number // 3}", "duration": rng.choice(["short", "long"]),
                      "domain": "Knowledge", "sub_category": rng.choice(["Law", "Geography"]), "task_type": "Counting Problem",
                      "question": f"What is number {number}?", "options": options, "answer": rng.choice("ABCD")})
    for piece, part in enumerate((table[:25], table[25:])):
        path = folder / f"test-{piece:05}-of-00002.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), path, compression="snappy", row_group_size=10)
    (HERE / "eval_rows" / "rows.json").write_text(json.dumps(table, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--seed", type=int, default=352)
    parser.add_argument("--output", type=Path, help="write the cases there, and no table")
    args = parser.parse_args()
    os.environ.setdefault("HF_HOME", "/nowhere")
    mv, tc, mme, anet = originals(args.checkout)
    rng = random.Random(args.seed)
    golden = mvbench(mv, rng)
    golden["videomme"] = videomme(mme, rng)
    golden["subtitles"], golden["videomme_prompts"] = subtitles(mme, rng)
    golden["set_order"] = sets(rng)
    golden.update(tempcompass(tc, rng))
    golden.update(judges(tc, anet, rng))
    for name, cases in golden.items():
        print(name, len(cases))
    output = args.output or HERE / "eval_rules.json"
    output.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
    if not args.output:
        rows(rng)


if __name__ == "__main__":
    main()
