// The forms of the OOD lab: the checkpoints to choose from, and how much a form asks for.

import { escapeHtml, on } from "./bus.js";
import { answerOf, ask, draw, Form } from "./jobs.js";

const forms = [];

export class PlannedForm extends Form {
  constructor(...about) {
    super(...about);
    forms.push(this);
  }

  mount(element) {
    this.told = Object.assign(document.createElement("p"), { className: "st-about st-planned" });
    this.told.setAttribute("role", "status");
    element.after(this.told);
    super.mount(element);
  }

  // The command, and below it how many episodes or points that is.
  async preview() {
    await super.preview();
    if (!this.element) return;
    const shown = this.asked; // the newest look at the command
    const good = this.element.dataset.state === "good";
    const answer = good ? await answerOf("lab/planned", this.body()).catch(() => null) : null;
    if (shown === this.asked) draw(this.told, escapeHtml(answer?.planned ?? ""));
  }

  offer(checkpoints) {
    if (!this.fields.length || this.offered === checkpoints.join()) return;
    this.offered = checkpoints.join();
    this.fill({ checkpoint: { choices: checkpoints, value: this.draft.checkpoint } });
  }
}

on("jobs", async () => {
  if (!document.getElementById("lab-page")?.offsetParent) return;
  const found = await ask("/choices").catch(() => null);
  for (const form of found ? forms : []) form.offer(found.checkpoints);
});
