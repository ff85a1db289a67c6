// Changes the page to what a text of HTML says, node by node: what stays the same element keeps its
// focus, a click that began on it, its open list. Elements are told apart by tag, class and name.

const NAMES = ["data-action", "data-name", "data-id", "data-task", "data-field"];

export function patch(element, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  children(element, template.content);
}

const alike = (a, b) =>
  a.nodeName === b.nodeName &&
  (a.nodeType !== Node.ELEMENT_NODE ||
    (a.className === b.className && NAMES.every((name) => a.getAttribute(name) === b.getAttribute(name))));

function children(into, from) {
  let at = into.firstChild;
  for (const node of [...from.childNodes]) {
    let match = at;
    while (match && !alike(match, node)) match = match.nextSibling;
    if (!match) into.insertBefore(node, at);
    else {
      while (at !== match) at = dropped(at);
      at = match.nextSibling;
      update(match, node);
    }
  }
  while (at) at = dropped(at);
}

function dropped(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function update(node, wanted) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  for (const { name } of [...node.attributes]) {
    const folded = name === "open" && node.tagName === "DETAILS"; // as a person left it
    if (!wanted.hasAttribute(name) && !folded) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  const { value } = wanted; // of a list, before its entries are taken out
  children(node, wanted);
  if (node.tagName === "INPUT") node.checked = wanted.checked;
  if (node.tagName === "SELECT" && node.value !== value) node.value = value;
}
