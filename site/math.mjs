// Formulas as HTML with MathML inside: a JSON list [[TeX, is it a display?], ...] comes in, a list of strings goes out.
import { readFileSync } from "node:fs";
import katex from "katex";

const formulas = JSON.parse(readFileSync(0, "utf8"));
const options = { throwOnError: true, strict: "ignore", output: "htmlAndMathml" };
const made = formulas.map(([tex, displayMode]) => {
  try {
    return katex.renderToString(tex, { ...options, displayMode });
  } catch (problem) {
    throw new Error(`${problem.message}\nin ${tex}`);
  }
});
process.stdout.write(JSON.stringify(made));
