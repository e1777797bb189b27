import { layOut, type Outline } from "./layout";

addEventListener("message", (e: MessageEvent<Outline>) => postMessage(layOut(e.data)));
