// Points out, in the strip and the timeline, the tracks and frames of the conversation that is pointed at or focused.
for (const talk of document.querySelectorAll(".talk")) {
  const look = document.querySelector(".look");
  const names = (list, letter) => list.split(" ").filter(Boolean).map((n) => "." + letter + n);
  const { tracks, frames, query } = talk.dataset;
  const parts = [...names(tracks, "t").map((t) => ".trk" + t), ...names(frames, "f").map((f) => ".tile" + f), ".ask.q" + query];
  const light = (on) => {
    look.classList.toggle("lit", on);
    look.classList.toggle("lit-tracks", on && tracks !== "");
    look.classList.toggle("lit-frames", on && frames !== "");
    const hot = look.querySelectorAll(parts.join(","));
    hot.forEach((part) => part.classList.toggle("hot", on));
    const tile = on && look.querySelector(".tile.hot");
    if (tile && matchMedia("(min-width: 1280px)").matches) tile.scrollIntoView({ block: "nearest" });
  };
  talk.addEventListener("pointerenter", () => light(true));
  talk.addEventListener("pointerleave", () => light(false));
  talk.addEventListener("focusin", () => light(true));
  talk.addEventListener("focusout", () => light(false));
}
