import { render } from "preact";

render(<p>Pilotlight</p>, document.getElementById("page")!);
