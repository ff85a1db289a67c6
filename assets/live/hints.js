// What a field of a form is for, in the words that Gradio writes into it: at the pointer, and beside
// the field that has the focus. Nothing on the page moves for it: a click under way stays where it is.

const WIDTH = 280; // px, as in jobs.css
const GAP = 10;
let card = null;

export function explain(form) {
  form.addEventListener("pointerover", ({ target }) => {
    const field = fieldOf(target);
    if (field) field.title ||= wordsOf(field);
  });
  form.addEventListener("focusin", ({ target }) => show(target, form.getBoundingClientRect()));
  form.addEventListener("focusout", hide);
  if (form.contains(document.activeElement)) show(document.activeElement, form.getBoundingClientRect());
}

const fieldOf = (element) => element.closest(":has(> .info-text)");
const wordsOf = (field) => field.querySelector(":scope > .info-text").textContent;

function hide() {
  card?.remove();
}

// Beside the form, or below the field where there is no room for that.
function show(target, form) {
  hide();
  const field = fieldOf(target);
  if (!field) return;
  target.setAttribute("aria-description", wordsOf(field));
  const box = field.getBoundingClientRect();
  const beside = form.right + GAP + WIDTH < innerWidth;
  const [left, top] = beside ? [form.right + GAP, box.top] : [box.left, box.bottom + GAP];
  card = Object.assign(document.createElement("div"), { className: "st-explained", textContent: wordsOf(field) });
  card.setAttribute("aria-hidden", "true"); // the field's description says it
  Object.assign(card.style, { left: `${left + scrollX}px`, top: `${top + scrollY}px` });
  document.body.append(card);
}
