/** ES module: `import { mount } from "http://…/widget.mjs"`, or use <chatgglm-widget> after importing it. */

import { ChatGGLMWidget, setDefaultBase } from "./element";
import { define, mount } from "./mount";

setDefaultBase(new URL(".", import.meta.url).href);
define();

export { ChatGGLMWidget, mount };
export type { WidgetOptions } from "./mount";
