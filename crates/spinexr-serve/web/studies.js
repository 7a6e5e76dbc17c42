// The list on the left: films by study.

const find = (id) => document.getElementById(id);

/** By the decision rule, where there are a probability and a threshold. */
function isAbnormal({ p_abnormal: p, threshold }) {
  return p !== null && threshold !== null && p >= threshold;
}

function isShown(film, filter, words) {
  const text = `${film.study} ${film.image} ${film.view ?? ""} ${film.body_part ?? ""}`.toLowerCase();
  if (!words.every((word) => text.includes(word))) return false;
  switch (filter) {
    case "open":
      return film.reading !== "complete" && film.state !== "failed";
    case "abnormal":
      return isAbnormal(film);
    case "failed":
      return film.state === "failed";
    default:
      return true;
  }
}

function scoreOf(film) {
  if (film.state === "failed") return ["failed", "failed"];
  if (film.state !== "done") return ["", film.state];
  if (film.p_abnormal === null) return ["", ""];
  return [isAbnormal(film) ? "abnormal" : "", film.p_abnormal.toFixed(2)];
}

/** Date and the end of the UID: a name that tells nothing of the patient. */
function studyName({ study, study_date: date }) {
  const day = /^\d{8}$/.test(date ?? "") ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : "Study";
  return `${day} · ${study.slice(-8)}`;
}

/** Fills the list; gives the films in the order shown. */
export function showStudies(films, current, onChoose) {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = films.filter((film) => isShown(film, find("filter").value, words));
  const list = find("studies");
  list.replaceChildren();
  let study = null;
  for (const film of shown) {
    if (film.study !== study) {
      study = film.study;
      const head = document.createElement("li");
      head.className = "study";
      head.textContent = studyName(film);
      head.title = study;
      list.append(head);
    }
    const li = document.createElement("li");
    const row = document.createElement("button");
    row.className = "film";
    row.dataset.film = film.id;
    if (film.id === current) row.setAttribute("aria-current", "true");
    const dot = document.createElement("span");
    dot.className = `dot ${film.reading ?? ""}`;
    dot.title = film.reading ? `my reading: ${film.reading}` : "not read by me";
    const name = document.createElement("span");
    name.textContent = [film.body_part, film.view].filter(Boolean).join(" ") || film.image;
    const [classes, text] = scoreOf(film);
    const score = document.createElement("span");
    score.className = `score ${classes}`;
    score.textContent = text;
    row.append(dot, name, score);
    row.addEventListener("click", () => onChoose(film.id));
    li.append(row);
    list.append(li);
  }
  const read = films.filter((film) => film.reading === "complete").length;
  find("count").textContent = `${shown.length} of ${films.length} films; ${read} read by me`;
  return shown;
}
