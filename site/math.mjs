// Formulas as HTML with MathML inside: a JSON list [[TeX, is it a display?], ...] comes in, a list of strings goes out.
import { readFileSync } from "node:fs";
import katex from "katex";

const formulas = JSON.parse(readFileSync(0, "utf8"));
const options = { throwOnError: true, strict: "ignore", output: "htmlAndMathml" };
const unsearched = ["<annotation", '<span class="katex-html"']; // a formula is found once, by its MathML
const made = formulas.map(([tex, displayMode]) => {
  try {
    const text = katex.renderToString(tex, { ...options, displayMode });
    return unsearched.reduce((all, part) => all.replaceAll(part, `${part} data-pagefind-ignore`), text);
  } catch (problem) {
    throw new Error(`${problem.message}\nin ${tex}`);
  }
});
process.stdout.write(JSON.stringify(made));
