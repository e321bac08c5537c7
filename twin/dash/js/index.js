// What the dashboard's page is made of, as one module: nothing is fetched from elsewhere.
export { Street } from "./street.js";
export { blocks, chart, heat, image, stages, theme } from "./panels.js";
